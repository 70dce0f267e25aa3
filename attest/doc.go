// Package attest asks devices to prove what they run, and judges the proof.
//
// Stage 3, field. Evidence (a PSA token, RFC 9783) is appraised against reference values that were published before it came: the
// digests of the components of published releases. The result is an EAR (draft-ietf-rats-ear-03), stored as the device's
// current verdict together with its fact.
//
// What it guarantees: a nonce is good for one device, once, and for a bounded time; a claim that is missing, unknown or not
// understood never reads as good; the status is never better than the worst entry of the trust vector; a simulated or software
// key is never called hardware. It trusts the factory's record of the attestation key, the publisher of releases, and nothing that
// the device says about itself beyond what that key signed.
package attest
