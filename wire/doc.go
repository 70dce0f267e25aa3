// Package wire holds every message that crosses a trust boundary: how it is written, how it is read back, how it is signed.
//
// Under all stages. Messages are CBOR in the core deterministic encoding (RFC 8949 §4.2.1), signed as COSE (RFC 9052). The
// package does no I/O, keeps no state and takes the time as an argument, so the server, the station, the device and an
// outside verifier run the same code on the same bytes.
//
// Decoders trust nobody: size first, then structure, then that the value encodes to the very bytes that came in. What a
// decoder returns is well-formed; whether it is *true* is for the Verify functions, which name what failed.
package wire
