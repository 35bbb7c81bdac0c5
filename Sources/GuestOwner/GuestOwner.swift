// GuestOwner
