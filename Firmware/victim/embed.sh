#!/bin/sh
# Writes a flat image as Swift source: embed.sh IMAGE > VictimProgram.swift
set -eu
cat <<HEAD
// Written by Firmware/victim/embed.sh from Firmware/victim/victim.s: \`make -C Firmware victim\`. Do not edit.

/// The guest that is attacked, as a flat image.
package enum VictimProgram {
    package static let bytes: [UInt8] = [
HEAD
od -An -v -tx1 -w16 "$1" | sed -E 's/ ([0-9a-f]{2})/0x\1, /g; s/^/        /; s/ $//'
printf '    ]\n}\n'
