package station

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/station/module"
	"github.com/hallmark-iot/hallmark/wire"
)

// opened is an order whose every part has been checked and unwrapped.
type opened struct {
	order    wire.Order
	envelope []byte
	sealed   wire.SealedHead // how the file begins
	kept     *os.File        // the file, when it is this station's own
	chunk    *wire.ChunkOpener
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
	var err error
	if o.kept != nil {
		err = o.kept.Close()
	}
	if o.key == nil {
		return err
	}
	return errors.Join(err, o.key.Destroy())
}

// refused makes the fault of an order that may not be used.
func refused(code string, err error) error {
	return &fault.Fault{
		Kind: fault.Denied, Code: "order." + code, Text: "order refused: " + err.Error(),
		Remedy: "ask the OEM for a new order file", Cause: err,
	}
}

// openOrder reads the beginning of an order's file and checks it in the order of cost: signature, station, validity, certificates, then the
// wrapped keys and the content. What r gives next are the chunks, of which nothing is known yet: see payload.go.
func (s *Station) openOrder(r io.Reader, now time.Time) (*opened, error) {
	head, err := wire.ReadSealedHead(r)
	if err != nil {
		return nil, refused("invalid", err)
	}
	o := &opened{sealed: head, envelope: head.Envelope}
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
	if o.content, err = wire.OpenContent(o.cek, o.order.Header, o.sealed.Content); err != nil {
		return err
	}
	if o.chunk, err = wire.NewOrderOpener(o.cek, o.order.Header, o.sealed.Chunks); err != nil {
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

// checkContent compares bundle and release with what the header promises.
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

// Import checks an order's file whole, as it comes, unwraps its keys once to see that they work, and keeps it. Importing the same file again
// writes it again, which mends one that was damaged; another file with the same order ID, and an order that was closed here, are refused.
func (s *Station) Import(file io.Reader, now time.Time) (Summary, error) {
	if err := s.sweep(); err != nil {
		return Summary{}, err
	}
	in := &source{r: bufio.NewReaderSize(file, 1<<16)}
	var head bytes.Buffer
	o, err := s.openOrder(io.TeeReader(in, &head), now)
	if err != nil {
		return Summary{}, in.why(err)
	}
	defer o.close() //nolint:errcheck // the module forgets it at the latest when it is closed
	j, err := s.admit(o)
	if err != nil {
		return Summary{}, err
	}
	if err := errors.Join(s.keep(j, o, head.Bytes(), in, now), j.close()); err != nil {
		return Summary{}, err
	}
	return s.summary(o.order.Header, wire.RecordHash(o.envelope))
}

// admit opens the order's job if a file of it is wanted here.
func (s *Station) admit(o *opened) (*job, error) {
	id := o.order.Header.ID
	if err := s.replayed(o); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.orderDir(id), 0o700); err != nil {
		return nil, fmt.Errorf("station: %w", err)
	}
	j, err := s.openJob(id, wire.RecordHash(o.envelope))
	if err != nil {
		return nil, err
	}
	if j.end != nil {
		return nil, errors.Join(refused("closed", fmt.Errorf("order %q was closed here", id)), j.close())
	}
	return j, nil
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

// load opens an imported order again. All but its payload is checked anew: the disk is not believed. Unless strict, it may have expired.
func (s *Station) load(id string, now time.Time, strict bool) (*opened, error) {
	if !strict {
		order, _, err := s.kept(id)
		if err != nil {
			return nil, err
		}
		if end := time.Unix(int64(order.Header.NotAfter), 0); now.After(end) {
			now = end // an order is closed also after it has expired
		}
	}
	f, err := s.keptFile(id)
	if err != nil {
		return nil, err
	}
	o, err := s.openOrder(bufio.NewReaderSize(f, 1<<16), now)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	o.kept = f
	return o, nil
}
