package foreign

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/audit"
	"github.com/hallmark-iot/hallmark/ledger/custody"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// Arrival is a device that another instance of this system hands over. Its chain of custody shows how it was made and with which keys, so that nothing has to
// be believed but the logs and witnesses that it is from.
type Arrival struct {
	Device, Product, Hardware string
	Certificate               []byte // SHA-256 of its factory certificate
	Identity                  []byte // SHA-256 of that one's key (SPKI)
	Attest                    []byte // SPKI
	KeyOrigin                 string
	Virtual                   bool
	Made, At                  time.Time
}

// Handed is what Welcome takes.
type Handed struct {
	Product string
	Trust   []byte // whom the chain is believed by: the trust file of the other instance's logs
	Custody []byte // the chain
}

// Welcomed is what became of it.
type Welcomed struct {
	Device   string    `json:"device"`
	Hardware string    `json:"hardware"`
	Outcome  Outcome   `json:"outcome"`
	Made     time.Time `json:"made"`
	From     string    `json:"from" doc:"origin of the log that shows it"`
}

// MaxHanded bounds a chain of custody that is taken, bytes.
const MaxHanded = 5 << 20

// Welcome registers a device that another instance hands over, by its chain of custody. The device keeps its ID and its factory identity, by which it enrols here, and no CA of
// the other instance is believed for anything: the one certificate is. Again, it changes nothing.
func (s *Service) Welcome(ctx context.Context, caller access.Caller, h Handed) (Welcomed, error) {
	if err := s.MayImport(ctx, caller, h.Product); err != nil {
		return Welcomed{}, err
	}
	p, err := s.c.Products.Get(ctx, caller, h.Product)
	if err != nil {
		return Welcomed{}, err
	}
	now := s.c.Now().UTC()
	a, from, err := arriving(h, now)
	if err != nil {
		return Welcomed{}, fault.Newf(fault.Invalid, "welcome.custody", "the chain of custody: %w", err).With("ask the instance that the device comes from for it again")
	}
	if !slices.Contains(p.Hardware, a.Hardware) {
		return Welcomed{}, noHardware(p, a.Hardware)
	}
	sum := sha256.Sum256(h.Custody)
	data, err := json.Marshal(Imported{
		Device: a.Device, Product: a.Product, Hardware: a.Hardware, Format: Custody, Kind: pki.ForeignCert, Of: hex.EncodeToString(a.Certificate),
		Identity: hex.EncodeToString(a.Identity), Custody: hex.EncodeToString(sum[:]), From: from,
	})
	if err != nil {
		return Welcomed{}, err
	}
	out, err := s.c.Store.Arrive(ctx, a, ledger.New(ledger.KindDeviceImported, now, caller.ID, a.Device, nil, data))
	if err != nil {
		return Welcomed{}, err
	}
	if out == Other {
		return Welcomed{}, fault.New(fault.Conflict, "welcome.other", fmt.Sprintf("device %s is here already, and is another, or its key or certificate is another's", a.Device), "look at it: hallmark device show")
	}
	return Welcomed{Device: a.Device, Hardware: a.Hardware, Outcome: out, Made: a.Made, From: from}, nil
}

// arriving reads who arrives out of a chain of custody that holds in every part.
func arriving(h Handed, now time.Time) (Arrival, string, error) {
	none := func(err error) (Arrival, string, error) { return Arrival{}, "", err }
	trust, err := audit.DecodeTrust(h.Trust)
	if err != nil {
		return none(fmt.Errorf("whom to believe: %w", err))
	}
	if trust.Quorum < 1 {
		return none(errors.New("whom to believe: without witnesses whoever has the log's key could have made the chain yesterday"))
	}
	c, err := wire.DecodeCustody(h.Custody)
	if err != nil {
		return none(err)
	}
	r, err := custody.Verify(c, trust)
	if err != nil {
		return none(err)
	}
	switch {
	case len(r.Problems) > 0:
		return none(fmt.Errorf("it does not hold: %s", r.Problems[0]))
	case r.Product != h.Product:
		return none(fmt.Errorf("device %s is of product %s: the product has to have the same ID here", r.Device, r.Product))
	}
	leaf, err := x509.ParseCertificate(r.Factory)
	if err != nil {
		return none(err)
	}
	if err := pki.ForeignLeaf(idevid.HandledSAN(leaf), now); err != nil {
		return none(fmt.Errorf("its factory certificate: %w", err))
	}
	from := ""
	for _, l := range trust.Logs {
		if l.Name == string(ledger.Control) {
			from = l.Origin
		}
	}
	return Arrival{
		Device: r.Device, Product: r.Product, Hardware: r.Record.Chip.Hardware, Certificate: digest(leaf.Raw), Identity: digest(leaf.RawSubjectPublicKeyInfo),
		Attest: r.Attest, KeyOrigin: r.Origin, Virtual: r.Record.Chip.Virtual, Made: time.Unix(int64(min(r.Record.Time, 1<<40)), 0).UTC(), At: now,
	}, from, nil
}

// Arrived implements pki.Foreigners.
func (s *Service) Arrived(leaf *x509.Certificate, id idevid.Identity, now time.Time) (pki.Device, error) {
	if err := pki.ForeignLeaf(leaf, now); err != nil {
		return pki.Device{}, fmt.Errorf("%w: %w", pki.ErrNotForeign, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookup)
	defer cancel()
	e, err := s.c.Store.Find(ctx, [][2]string{{pki.ForeignCert, hex.EncodeToString(digest(leaf.Raw))}})
	if err != nil {
		return pki.Device{}, fmt.Errorf("devices that were handed over: %w", err)
	}
	if e.Format != Custody || e.Device != id.DeviceID {
		return pki.Device{}, pki.ErrNotForeign
	}
	return pki.Device{Cert: leaf, Issuer: leaf, Identity: idevid.Identity{Kind: idevid.IDevID, DeviceID: e.Device, OEM: s.c.OEM, Product: e.Product, HWRev: e.Hardware}}, nil
}
