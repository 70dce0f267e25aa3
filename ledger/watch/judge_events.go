package watch

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

func orderUnsound(m *Memory, _ Policy, l *line) string {
	if _, _, err := m.OrderKeys.Order(l.fact, l.order.Product); err != nil {
		return err.Error()
	}
	if len(l.order.Chain) == 0 || !m.OrderCAs[fingerprint(l.order.Chain[0])] {
		return "its CA was not made for orders"
	}
	return ""
}

// late is how much later than its order's end a piece may say that it was made: stations' clocks err.
const late = 10 * time.Minute

func orderEnded(m *Memory, _ Policy, l *line) string {
	o := m.Orders[l.record.Order]
	switch {
	case o == nil: // told by another rule
		return ""
	case l.record.Time > o.NotAfter && l.record.Time-o.NotAfter > uint64(late/time.Second):
		return fmt.Sprintf("made at %s under order %s, which ended %s", unix(l.record.Time), l.record.Order, unix(o.NotAfter))
	case !o.Closed.IsZero() && l.at.After(o.Closed.Add(skew)):
		return fmt.Sprintf("recorded at %s under order %s, which was closed at %s", stamp(l.at), l.record.Order, stamp(o.Closed))
	}
	return ""
}

func unix(t uint64) string { return stamp(time.Unix(int64(min(t, 1<<40)), 0)) }

func overQuota(m *Memory, _ Policy, l *line) string {
	r := l.record
	if o := m.Orders[r.Order]; o != nil && (r.Ticket >= o.Quota || r.Seq > o.Quota) {
		return fmt.Sprintf("ticket %d, record %d of order %s for %d devices", r.Ticket, r.Seq, r.Order, o.Quota)
	}
	return ""
}

func recordUnsound(m *Memory, _ Policy, l *line) string {
	r := l.record
	o := m.Orders[r.Order]
	if o == nil {
		return fmt.Sprintf("no order %.80q is in the control log", r.Order)
	}
	if !bytes.Equal(r.Station, o.Station) || len(o.Station) < len(wire.KeyID{}) || l.signers[0] != wire.KeyID(o.Station[:len(wire.KeyID{})]) {
		return fmt.Sprintf("it is not of the station of order %s", r.Order)
	}
	if r.Device != l.fact.Subject || r.Outcome != wire.Made || r.Keys == nil {
		return fmt.Sprintf("the record is of device %s, which was %s", r.Device, r.Outcome)
	}
	ca, err := x509.ParseCertificate(o.CA)
	if err != nil {
		return err.Error()
	}
	leaf, err := x509.ParseCertificate(r.Certificate)
	if err != nil {
		return err.Error()
	}
	if err := leaf.CheckSignatureFrom(ca); err != nil {
		return fmt.Sprintf("its certificate is not by the CA of order %s: %v", r.Order, err)
	}
	id, err := idevid.Parse(leaf)
	if err != nil {
		return err.Error()
	}
	if id.DeviceID != r.Device || id.Product != o.Product || !bytes.Equal(leaf.RawSubjectPublicKeyInfo, r.Keys.IDevID) {
		return fmt.Sprintf("its certificate is of device %s of %s, or of another key", id.DeviceID, id.Product)
	}
	if err := r.Verify(); err != nil {
		return err.Error()
	}
	return ""
}

func madeTwice(m *Memory, _ Policy, l *line) string {
	r := l.record
	switch {
	case m.seen(setDevice, idOf([]byte(l.fact.Subject))):
		return "the device was made before"
	case r.Chip != nil && m.seen(setChip, idOf(r.Chip.ChipUID)):
		return fmt.Sprintf("chip %x was in a device before", r.Chip.ChipUID)
	case r.Keys != nil && m.seen(setKey, idOf(r.Keys.IDevID)):
		return "its key is another device's"
	case m.seen(setTicket, ticketOf(r)):
		return fmt.Sprintf("ticket %d of order %s was used before", r.Ticket, r.Order)
	}
	return ""
}

func certIssuer(m *Memory, _ Policy, l *line) string {
	der := m.Authorities[hex.EncodeToString(l.cert.AuthorityKeyId)]
	if der == nil {
		return fmt.Sprintf("its issuer, %.80q, is no known authority", l.cert.Issuer.CommonName)
	}
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		return err.Error()
	}
	if err := l.cert.CheckSignatureFrom(ca); err != nil {
		return fmt.Sprintf("%s has not signed it: %v", ca.Subject.CommonName, err)
	}
	id, err := idevid.Parse(l.cert)
	if err != nil {
		return err.Error()
	}
	if id.DeviceID != l.fact.Subject {
		return fmt.Sprintf("it is of device %s", id.DeviceID)
	}
	return ""
}

func certUnborn(m *Memory, _ Policy, l *line) string {
	if m.seen(setDevice, idOf([]byte(l.fact.Subject))) {
		return ""
	}
	return "no production record of the device is in the log before it"
}

func certRetired(m *Memory, _ Policy, l *line) string {
	if !m.seen(setRetired, idOf([]byte(l.fact.Subject))) {
		return ""
	}
	return "the device was wiped or taken out of service before"
}

func suspect(_ *Memory, _ Policy, l *line) string {
	return "the server tells of it itself: " + string(l.kind)
}
