// Package station is the programming centre's side of making devices: it takes in an OEM's order, makes as many devices as the
// order has tickets, and keeps a chained record of each.
//
// Stage 2, birth. What it guarantees:
//   - An order is used only when it is signed by the OEM's pinned order key, is for this station, this OEM's keys and now, and
//     everything in it, down to the wrapped key, belongs to it.
//   - A ticket is consumed, durably, before anything is signed for it; no ticket serves twice, whatever stops the station.
//   - Every consumed ticket has a record: made, scrapped or interrupted. Records are chained by hash from the order on.
//   - The fuses of a device are burnt last, after what is on the device was read back and found right.
//
// Whom it trusts: the module to hold the order key, the pinned OEM root. It does not trust the order file, the device, or its own
// disk to be complete. The OEM does not have to trust the station for the quota: it accepts the order's serials only, each once.
package station
