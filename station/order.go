package station

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/station/durable"
	"github.com/hallmark-iot/hallmark/station/module"
	"github.com/hallmark-iot/hallmark/wire"
)

// opened is an order whose every part has been checked and unwrapped.
type opened struct {
	order    wire.Order
	envelope []byte
	file     wire.OrderFile
	content  wire.OrderContent
	bundle   wire.Bundle
	release  wire.Release
	ca       *x509.Certificate
	cek      []byte
	key      module.OrderKey
}

// close destroys the order key in the module and forgets the content key.
func (o *opened) close() error {
	clear(o.cek)
	clear(o.content.TicketSeed)
	if o.key == nil {
		return nil
	}
	return o.key.Destroy()
}

// refused makes the fault of an order that may not be used.
func refused(code string, err error) error {
	return &fault.Fault{
		Kind: fault.Denied, Code: "order." + code, Text: "order refused: " + err.Error(),
		Remedy: "ask the OEM for a new order file", Cause: err,
	}
}

// openOrder checks an order file in the order of cost: signature, station, validity, integrity, certificates, then the wrapped
// keys and the content.
func (s *Station) openOrder(data []byte, now time.Time) (*opened, error) {
	f, err := wire.DecodeOrderFile(data)
	if err != nil {
		return nil, refused("invalid", err)
	}
	o := &opened{file: f, envelope: f.Order}
	oem, root, err := s.verifySigner(o)
	if err != nil {
		return nil, err
	}
	h := o.order.Header
	if h.OEM != oem.ID {
		return nil, refused("signer", fmt.Errorf("it names OEM %q and is signed by %q", h.OEM, oem.ID))
	}
	if !bytes.Equal(h.Station, s.id[:]) || h.HSMSerial != s.mod.Info().Serial {
		return nil, refused("station", fmt.Errorf("it is for station %x with token %q", h.Station, h.HSMSerial))
	}
	if err := valid(h, now); err != nil {
		return nil, err
	}
	if err := f.CheckSealed(o.order); err != nil {
		return nil, refused("changed", err)
	}
	if err := o.checkChain(root, now); err != nil {
		return nil, refused("chain", err)
	}
	if err := s.unwrap(o); err != nil {
		return nil, errors.Join(refused("unwrap", err), o.close())
	}
	if err := o.checkContent(); err != nil {
		return nil, errors.Join(refused("content", err), o.close())
	}
	return o, nil
}

// verifySigner finds which pinned OEM signed the order. The header is not believed before: it only says whom to try.
func (s *Station) verifySigner(o *opened) (OEM, *x509.Certificate, error) {
	p, err := wire.Parse1(wire.TypeOrder, o.envelope)
	if err != nil {
		return OEM{}, nil, refused("signature", err)
	}
	claimed, err := wire.DecodeOrder(p.Payload)
	if err != nil {
		return OEM{}, nil, refused("invalid", err)
	}
	oem, err := s.oem(claimed.Header.OEM)
	if err != nil {
		return OEM{}, nil, err
	}
	root, keys, err := oem.parse()
	if err != nil {
		return OEM{}, nil, err
	}
	for _, key := range keys {
		if o.order, err = wire.VerifyOrder(o.envelope, key); err == nil {
			return oem, root, nil
		}
	}
	return OEM{}, nil, refused("signature", err)
}

func valid(h wire.OrderHeader, now time.Time) error {
	t := uint64(max(now.Unix(), 0))
	if t < h.NotBefore {
		return refused("early", fmt.Errorf("it is valid from %s, and it is %s", unix(h.NotBefore), now.UTC().Format(time.RFC3339)))
	}
	if t > h.NotAfter {
		return refused("expired", fmt.Errorf("it expired at %s", unix(h.NotAfter)))
	}
	return nil
}

func unix(t uint64) string { return time.Unix(int64(t), 0).UTC().Format(time.RFC3339) }

// checkChain holds the order CA to the signer's root: a CA of another OEM, transplanted with its blob, ends here.
func (o *opened) checkChain(root *x509.Certificate, now time.Time) error {
	chain := o.order.Header.Chain
	if !bytes.Equal(chain[len(chain)-1], root.Raw) {
		return errors.New("the chain does not end in the signer's root")
	}
	ca, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return fmt.Errorf("order CA: %w", err)
	}
	if !ca.IsCA || ca.MaxPathLen != 0 || !ca.MaxPathLenZero {
		return errors.New("the order CA is not a CA of path length 0")
	}
	roots, inter := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(root)
	for _, der := range chain[1 : len(chain)-1] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("chain: %w", err)
		}
		inter.AddCert(c)
	}
	if _, err := ca.Verify(x509.VerifyOptions{Roots: roots, Intermediates: inter, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return fmt.Errorf("order CA: %w", err)
	}
	if !bytes.Equal(ca.RawSubjectPublicKeyInfo, o.order.Key.SPKI) {
		return errors.New("the wrapped key is not the order CA's")
	}
	o.ca = ca
	return nil
}

func (s *Station) unwrap(o *opened) error {
	oem := o.order.Header.OEM
	var err error
	if o.cek, err = s.mod.OpenContentKey(oem, o.order.Content); err != nil {
		return err
	}
	if o.content, err = wire.OpenContent(o.cek, o.order.Header, o.file.Content); err != nil {
		return err
	}
	if o.key, err = s.mod.UnwrapSigner(oem, o.order.Key); err != nil {
		return err
	}
	pub, ok := o.key.Public().(*ecdsa.PublicKey)
	if !ok || !pub.Equal(o.ca.PublicKey) {
		return errors.New("the unwrapped key does not match the order CA's certificate")
	}
	return nil
}

// checkContent compares bundle, release and payload with what the header promises.
func (o *opened) checkContent() error {
	h := o.order.Header
	var err error
	if sum := sha256.Sum256(o.content.Bundle); !bytes.Equal(sum[:], h.Bundle) {
		return errors.New("the trust bundle is not the one that was signed")
	}
	if o.bundle, err = wire.VerifyBundle(nil, o.content.Bundle); err != nil {
		return fmt.Errorf("trust bundle: %w", err)
	}
	if o.bundle.Product != h.Product {
		return fmt.Errorf("the trust bundle is for product %q", o.bundle.Product)
	}
	root, err := wire.RootDigest(o.bundle)
	if err != nil || !bytes.Equal(root[:], h.Root) {
		return errors.Join(err, errors.New("the root digest for the fuses is not the bundle's"))
	}
	var digest [32]byte
	if o.release, digest, err = wire.VerifyRelease(o.bundle, o.content.Release); err != nil {
		return fmt.Errorf("release: %w", err)
	}
	if !bytes.Equal(digest[:], h.Release) || !o.release.RunsOn(h.Hardware) || o.release.Counter < h.Counter {
		return errors.New("the release is not the one the header promises, or not for this hardware")
	}
	return o.checkPayload()
}

// checkPayload hashes every component once, so that a device never gets the beginning of a wrong one.
func (o *opened) checkPayload() error {
	digest, at := sha256.New(), 0
	err := o.chunks(func(c wire.Component, offset uint64, data []byte) error {
		digest.Write(data)
		if offset+uint64(len(data)) < c.Size {
			return nil
		}
		if !bytes.Equal(digest.Sum(nil), c.Digest) {
			return fmt.Errorf("component %q has another digest than the release says", c.Name)
		}
		digest.Reset()
		at++
		return nil
	})
	if err == nil && at != len(o.release.Components) {
		err = errors.New("the payload ends before its last component")
	}
	return err
}

// chunks walks the payload: chunks of the file cut again at the borders of components.
func (o *opened) chunks(each func(c wire.Component, offset uint64, data []byte) error) error {
	next, offset := 0, uint64(0)
	for i := range o.file.Payload {
		data, err := o.file.OpenChunk(o.cek, o.order.Header, i)
		if err != nil {
			return err
		}
		for len(data) > 0 {
			if next == len(o.release.Components) {
				return errors.New("the payload is longer than its components")
			}
			c := o.release.Components[next]
			n := min(uint64(len(data)), c.Size-offset)
			if err := each(c, offset, data[:n]); err != nil {
				return err
			}
			data, offset = data[n:], offset+n
			if offset == c.Size {
				next, offset = next+1, 0
			}
		}
	}
	return nil
}

// Summary is what the station tells of an order.
type Summary struct {
	Order    string    `json:"order"`
	OEM      string    `json:"oem"`
	Product  string    `json:"product"`
	Hardware string    `json:"hardware"`
	Release  string    `json:"release"`
	Quota    uint32    `json:"quota"`
	Used     uint32    `json:"used"` // tickets
	Left     uint32    `json:"left"`
	Made     uint32    `json:"made"`
	Scrapped uint32    `json:"scrapped"` // and interrupted
	Expires  time.Time `json:"expires"`
	Closed   bool      `json:"closed"`
}

func (s *Station) orderDir(id string) string { return filepath.Join(s.dir, "orders", id) }

const orderName = "order.hmo"

// Import checks an order file whole, unwraps its keys once to see that they work, and keeps it. Importing the same file again
// changes nothing; another file with the same order ID, and an order that was closed here, are refused.
func (s *Station) Import(data []byte, now time.Time) (Summary, error) {
	o, err := s.openOrder(data, now)
	if err != nil {
		return Summary{}, err
	}
	defer o.close() //nolint:errcheck // the module forgets it at the latest when it is closed
	id := o.order.Header.ID
	dir := s.orderDir(id)
	path := filepath.Join(dir, orderName)
	old, err := os.ReadFile(path)
	switch {
	case err == nil && !bytes.Equal(old, data):
		return Summary{}, refused("replayed", fmt.Errorf("another order %q was imported before", id))
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return Summary{}, fmt.Errorf("station: %w", err)
	case err != nil:
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return Summary{}, fmt.Errorf("station: %w", err)
		}
		j, jerr := s.openJob(id, wire.RecordHash(o.envelope))
		if jerr != nil {
			return Summary{}, jerr
		}
		closed := j.end != nil
		if err := errors.Join(j.touch(now), j.close()); err != nil {
			return Summary{}, err
		}
		if closed {
			return Summary{}, refused("closed", fmt.Errorf("order %q was closed here", id))
		}
		// The order file last: an order whose file is there is whole.
		if err := durable.WriteFile(filepath.Join(dir, envelopeName), o.envelope); err != nil {
			return Summary{}, err
		}
		if err := durable.SyncDir(filepath.Dir(dir)); err != nil {
			return Summary{}, err
		}
		if err := durable.WriteFile(path, data); err != nil {
			return Summary{}, err
		}
	}
	return s.summary(o.order.Header, wire.RecordHash(o.envelope))
}

func (s *Station) summary(h wire.OrderHeader, anchor [32]byte) (Summary, error) {
	j, err := s.openJob(h.ID, anchor)
	if err != nil {
		return Summary{}, err
	}
	sum := Summary{
		Order: h.ID, OEM: h.OEM, Product: h.Product, Hardware: h.Hardware, Release: fmt.Sprintf("%x", h.Release),
		Quota: h.Quota, Used: j.used, Left: h.Quota - j.used, Made: j.made, Scrapped: j.scrapped,
		Expires: time.Unix(int64(h.NotAfter), 0).UTC(), Closed: j.end != nil,
	}
	return sum, j.close()
}

// load reads an imported order back. It is checked again in full: the disk is not believed. Unless strict, it may have expired.
func (s *Station) load(id string, now time.Time, strict bool) (*opened, error) {
	if !wire.ValidName(id) {
		return nil, fault.New(fault.Invalid, "order.invalid", fmt.Sprintf("order %q: not a name", id), "")
	}
	data, err := os.ReadFile(filepath.Join(s.orderDir(id), orderName))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "order.unknown", fmt.Sprintf("this station holds no open order %q", id), "import its file first")
	}
	if err != nil {
		return nil, fmt.Errorf("station: %w", err)
	}
	if !strict {
		now = s.within(data, now)
	}
	return s.openOrder(data, now)
}

// within moves now into the order's validity: an order is closed also after it has expired.
func (s *Station) within(data []byte, now time.Time) time.Time {
	f, err := wire.DecodeOrderFile(data)
	if err != nil {
		return now // openOrder will say it
	}
	o := &opened{envelope: f.Order}
	if _, _, err := s.verifySigner(o); err != nil {
		return now
	}
	if end := time.Unix(int64(o.order.Header.NotAfter), 0); now.After(end) {
		return end
	}
	return now
}
