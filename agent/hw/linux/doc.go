// Package linux is a board under a Linux kernel: flash that is a file, a block device or an MTD, fuses and counters in a TPM or a file, a watchdog.
//
// Under all stages, on the device. It makes the parts of agent/hw out of what a kernel offers, and says of each what it is: Parts in the evidence is tpm
// where a TPM guards fuses and counters, tpm-owner where whoever owns the TPM could delete them, soft where a file holds them. What Program, Erase, Blow
// and Raise return without an error for is on the medium (fdatasync). It trusts the kernel and the medium: a device whose cache lies about a flush breaks it.
package linux
