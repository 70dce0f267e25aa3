// Package device is the registry of devices, the one authority that tells a device what to do, and the place it asks.
//
// Stage 3, field. A device is made in the factory (`provisioned`), proves itself over the network (`onboarded`), works
// (`active`) and ends (`disposed`); state.go is that machine, as a pure function. Legitimacy, whether the piece is what it says it
// is, is a second axis: a quarantined device may be genuine, an active one resold.
//
// What it guarantees:
//   - Every transition is one compare-and-swap on the state, with its fact and the fact's cause in the same transaction.
//   - A command is signed and logged once, before any device hears of it. A device gets it only with proof that it is in the
//     witnessed log; until then the device is told to come back soon.
//   - The counter of a directive is durable before the directive leaves, and never repeats for a device.
//   - A result a device reports is taken once, whatever is resent; it is acknowledged when it is durable.
//   - A check-in that changes nothing writes nothing but the time, in batches.
//
// It trusts the adapter to have authenticated the device whose ID it names, and the Ledger to give proofs; a device verifies
// all of it again. It holds the directive authority's signer, so a thief of this process can issue routine and guarded acts,
// which devices bound in time, and no fatal ones, which need signatures that are not here.
package device
