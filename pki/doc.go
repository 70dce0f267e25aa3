// Package pki issues, verifies and revokes certificates.
//
// Stage 2, birth: a device's identity begins here, and every later proof refers back to it. The hierarchy is
//
//	OEM root (offline) ─┬─ product CA ── order CA (per order and station, pathLen 0) ── IDevID
//	                    ├─ operational CA ── LDevID
//	                    └─ infrastructure CA ── server, verdict
//
// It guarantees: no certificate leaves without its fact in the ledger, written in the same transaction; asking twice gives the
// same certificate; nothing is signed that profile and lint do not allow; a certificate counts only under a CA of its own kind,
// so a stolen order key makes neither servers nor operational identities; and what cannot be checked against a recent list of
// revocations is refused. It trusts its authorities' keys and the store, and believes nothing in a request but its key.
package pki
