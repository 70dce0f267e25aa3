// Package factory is the OEM's side of having devices made by a programming centre it does not trust.
//
// Stage 2, birth. An order says what may be made, how many, at which station and until when; it is wrapped to that station's module
// and may travel over any channel. Records come back and turn tickets into devices. What it guarantees:
//   - An order CA lives for one order at one station, with path length 0; its private key leaves this process only wrapped to the
//     station's module, in one hop, and is forgotten here.
//   - However many pieces a station makes, at most the order's quota become devices: a record is accepted only with a serial
//     derived from one of the order's tickets, and each ticket, chip and key only once, ever.
//   - Once the station has ended an order, or the OEM closed it, no other record than those it was ended with becomes a device; nor
//     does one that says it was made after the order's time.
//   - A record that is not accepted is never silent: it is an alarm, with the record as evidence, raised once.
//   - Importing is idempotent, in any order; a missing record keeps the order from being closed.
//
// Whom it trusts: the OEM's order key and order CA, and the station's record key to name the station, not to tell the truth. What a
// station claims of a piece is proved by the piece (possession of its keys) and later by its evidence.
package factory
