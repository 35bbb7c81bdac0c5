// What lib/runtime.s offers to Swift. It changes RAX, RCX and RDX only, so C's calling convention holds.
#pragma once

/// Address of the Linux boot parameters that the launch plan passed in RSI.
extern const unsigned long boot_params;
/// The C-bit, or 0 in a plain guest.
extern const unsigned long c_mask;

/// One byte to the serial port.
void serial_byte(unsigned char byte);
/// Checks one value: prints "ok" or "BAD" with the name and counts failures.
void expect(const char *_Nonnull name, unsigned long got, unsigned long wanted);
