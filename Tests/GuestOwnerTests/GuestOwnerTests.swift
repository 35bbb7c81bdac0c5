// Tests of GuestOwner.
