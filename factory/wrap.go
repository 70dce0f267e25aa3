package factory

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha1" // OAEP for modules that have nothing newer
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/tink-crypto/tink-go/v2/kwp/subtle"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/wire"
)

// Source gives the bytes of a component, from their beginning. It is asked more than once, because what is signed stands before what it signs.
type Source func(ctx context.Context, component string) (io.ReadCloser, error)

// InMemory is a source of what is there already.
func InMemory(components map[string][]byte) Source {
	return func(_ context.Context, name string) (io.ReadCloser, error) {
		b, ok := components[name]
		if !ok {
			return nil, fmt.Errorf("component %q is missing", name)
		}
		return io.NopCloser(bytes.NewReader(b)), nil
	}
}

// Maker is whose orders are wrapped, and with which keys: a server's, or those of a desk without a network.
type Maker struct {
	OEM      string        // in orders and certificates
	Root     []byte        // the OEM root's certificate (DER), which stations pin
	OrderKey crypto.Signer // signs orders; stations pin it
	CA       CA
}

// Wrapped is an order that was wrapped to its station. Its file can be written until it is forgotten.
type Wrapped struct {
	Order  Order                  // without Secret and UID, which are the store's
	Master *wire.RegisteredMaster // that it is of, for its registration; nil: of none

	content wire.OrderContent
	ret     []byte // P-256 scalar that opens records
	seal    *wire.FileSeal
	payload payload
}

// Size is how long the order's file is, bytes.
func (w *Wrapped) Size() int64 { return w.seal.Size(w.Order.Envelope) }

// WriteFile writes the order's file. The components are read again, and must be the same.
func (w *Wrapped) WriteFile(ctx context.Context, to io.Writer) error {
	return w.payload.read(ctx, func(r io.Reader) error { return w.seal.Write(to, w.Order.Envelope, r) })
}

// draft is an order being made.
type draft struct {
	spec    OrderSpec
	station wire.Station
	bundle  wire.Bundle
	release wire.Release
	header  wire.OrderHeader
	content wire.OrderContent
}

// named is the spec with an ID.
func (spec OrderSpec) named() OrderSpec {
	if spec.ID == "" {
		var b [6]byte
		_, _ = rand.Read(b[:])
		spec.ID = "ord-" + hex.EncodeToString(b[:])
	}
	return spec
}

// Wrap makes an order of spec at now: an order CA by m, its key and the content wrapped to the station's module, the whole signed. It keeps nothing, and
// needs neither a server nor a network.
func Wrap(ctx context.Context, m Maker, spec OrderSpec, now time.Time) (*Wrapped, error) {
	d, err := newDraft(m, spec.named(), now)
	if err != nil {
		return nil, err
	}
	return d.wrap(ctx, m)
}

// newDraft holds a spec against itself. It reads no firmware.
func newDraft(m Maker, spec OrderSpec, now time.Time) (*draft, error) {
	d := &draft{spec: spec}
	return d, d.check(m, now.UTC().Truncate(time.Second))
}

// check verifies everything that comes in but the firmware, and that it belongs together, before any key is made.
func (d *draft) check(m Maker, now time.Time) error {
	spec := d.spec
	if spec.NotBefore.IsZero() {
		spec.NotBefore = now
		d.spec.NotBefore = now
	}
	if !spec.NotAfter.After(now) {
		return invalid("its end %s is not ahead", spec.NotAfter.Format(time.RFC3339))
	}
	if len(spec.StationPin) != 32 {
		return invalid("the fingerprint of the station's record key is missing: ask the programming centre, not by the channel the descriptor came")
	}
	var err error
	if d.station, err = wire.VerifyStation(spec.Descriptor, [32]byte(spec.StationPin)); err != nil {
		return fault.Newf(fault.Denied, "order.station", "order: station: %w", err).With("take the station's certificate again, and see that it is of the station that is meant")
	}
	if d.station.OEM != m.OEM {
		return invalid("the descriptor is for OEM %q: ask for one for %q", d.station.OEM, m.OEM)
	}
	if d.bundle, err = wire.VerifyBundle(nil, spec.Bundle); err != nil {
		return invalid("trust bundle: %w", err)
	}
	var digest [32]byte
	if d.release, digest, _, err = (stock{bundle: d.bundle, inForce: d.bundle, release: spec.Release}).judge(spec.Product, spec.Hardware); err != nil {
		return err
	}
	return d.fill(m.OEM, digest, now)
}

func (d *draft) fill(oem string, release [32]byte, now time.Time) error {
	spec := d.spec
	root, err := wire.RootDigest(d.bundle)
	if err != nil {
		return err
	}
	bundle, id := sha256.Sum256(spec.Bundle), d.station.ID()
	d.header = wire.OrderHeader{
		ID: spec.ID, OEM: oem, Product: spec.Product, Hardware: spec.Hardware, Quota: spec.Quota,
		NotBefore: uint64(spec.NotBefore.Unix()), NotAfter: uint64(spec.NotAfter.Unix()), Station: id[:], HSMSerial: d.station.Serial,
		Profile: wire.ProfileIDevID1, Bundle: bundle[:], Release: release[:], Root: root[:], Counter: d.release.Counter,
		MaxOffline: spec.MaxOfflineDays, Created: uint64(now.Unix()), FirstArticle: spec.FirstArticle, Chips: spec.Chips, Keys: spec.Keys,
	}
	if err := d.header.CheckTerms(); err != nil {
		return invalid("%w", err)
	}
	d.content = wire.OrderContent{TicketSeed: make([]byte, 32), Bundle: spec.Bundle, Release: spec.Release, Params: spec.Params}
	_, _ = rand.Read(d.content.TicketSeed)
	if _, err := wire.EncodeOrderContent(d.content); err != nil {
		return invalid("%w", err)
	}
	return nil
}

// payload is the components one after another, in the release's order.
type payload struct {
	from       Source
	components []wire.Component
}

func (p payload) size() (n uint64) {
	for _, c := range p.components {
		n += c.Size
	}
	return n
}

// check holds each component against the release, and all of them against the slot.
func (p payload) check(ctx context.Context, slot uint64) error {
	if p.from == nil {
		return invalid("it has no components")
	}
	for _, c := range p.components {
		r, err := p.from(ctx, c.Name)
		if err != nil {
			return invalid("component %q: %w", c.Name, err)
		}
		sum := sha256.New()
		n, err := io.Copy(sum, io.LimitReader(r, int64(c.Size)+1))
		if err = errors.Join(err, r.Close()); err != nil {
			return invalid("component %q: %w", c.Name, err)
		}
		if uint64(n) != c.Size || !bytes.Equal(sum.Sum(nil), c.Digest) {
			return invalid("component %q is not the release's", c.Name)
		}
	}
	if n := p.size(); n > slot {
		return invalid("the components have %d bytes, a slot %d", n, slot)
	}
	return nil
}

// read has do read all of it.
func (p payload) read(ctx context.Context, do func(r io.Reader) error) error {
	r := &reading{ctx: ctx, p: p}
	return errors.Join(do(r), r.close())
}

// reading reads one component after another.
type reading struct {
	ctx  context.Context //nolint:containedctx // a reader has no other way to one
	p    payload
	next int
	open io.ReadCloser
}

func (r *reading) Read(b []byte) (int, error) {
	for {
		if r.open == nil {
			if r.next == len(r.p.components) {
				return 0, io.EOF
			}
			var err error
			if r.open, err = r.p.from(r.ctx, r.p.components[r.next].Name); err != nil {
				return 0, err
			}
			r.next++
		}
		n, err := r.open.Read(b)
		if !errors.Is(err, io.EOF) {
			return n, err
		}
		if err := r.close(); err != nil || n > 0 {
			return n, err
		}
	}
}

func (r *reading) close() error {
	if r.open == nil {
		return nil
	}
	err := r.open.Close()
	r.open = nil
	return err
}

// wrap reads the firmware, makes the order CA, wraps its key and the content to the station, and signs.
func (d *draft) wrap(ctx context.Context, m Maker) (*Wrapped, error) {
	p := payload{from: d.spec.Payload, components: d.release.Components}
	if err := p.check(ctx, d.spec.Params.Flash.SlotSize); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	ret, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	d.header.ReturnKey = ret.PublicKey().Bytes()
	if d.header.Chain, err = m.CA.IssueOrderCA(ctx, OrderCARequest{
		OEM: m.OEM, Product: d.spec.Product, Order: d.spec.ID, Station: hex.EncodeToString(d.header.Station), Key: key.Public(), NotBefore: d.spec.NotBefore,
	}); err != nil {
		return nil, fmt.Errorf("order CA: %w", err)
	}
	if n := len(d.header.Chain); n == 0 || !bytes.Equal(d.header.Chain[n-1], m.Root) {
		return nil, errors.New("order CA: its chain does not end in the OEM's root")
	}
	cek := wire.NewContentKey()
	defer clear(cek)
	order := wire.Order{Header: d.header}
	if order.Key, order.Content, err = wrapKeys(d.station, key, cek); err != nil {
		return nil, err
	}
	w := &Wrapped{content: d.content, ret: ret.Bytes(), payload: p}
	if w.seal, err = wire.NewOrderSeal(cek, d.header, d.content, p.size()); err != nil {
		return nil, invalid("%w", err)
	}
	if err := p.read(ctx, func(r io.Reader) error {
		sealed, err := w.seal.Add(r)
		order.Sealed = sealed[:]
		return err
	}); err != nil {
		return nil, invalid("%w", err)
	}
	body, err := wire.EncodeOrder(order)
	if err != nil {
		return nil, invalid("%w", err)
	}
	params, err := wire.Marshal(d.content.Params)
	if err != nil {
		return nil, err
	}
	rel, par := sha256.Sum256(d.content.Release), sha256.Sum256(params)
	w.Order = orderOf(order, d.station, d.bundle, d.release, rel[:], par[:])
	w.Order.Envelope, err = wire.Sign1(wire.TypeOrder, body, m.OrderKey)
	return w, err
}

// orderOf is an order as the OEM keeps it. The sums are of the release's envelope and of the encoded parameters.
func orderOf(o wire.Order, st wire.Station, b wire.Bundle, r wire.Release, release, params []byte) Order {
	h := o.Header
	out := Order{
		ID: h.ID, OEM: h.OEM, Product: h.Product, Hardware: h.Hardware, Quota: h.Quota, State: Open,
		NotBefore: unix(h.NotBefore), NotAfter: unix(h.NotAfter), Created: unix(h.Created),
		Station: hex.EncodeToString(h.Station), StationName: st.Name, Module: st.Module, RecordKey: st.RecordKey,
		Release: hex.EncodeToString(h.Release), Version: r.Version, Bundle: b.Version, ReleaseSum: release, ParamsSum: params,
		FirstArticle: h.FirstArticle, Chips: h.Chips, Keys: h.Keys,
	}
	for _, k := range r.Components {
		out.Components = append(out.Components, wire.NamedDigest{Name: k.Name, Digest: k.Digest})
	}
	return out
}

func unix(t uint64) time.Time { return time.Unix(int64(min(t, 1<<40)), 0).UTC() }

// wrapKeys wraps both keys directly under the station's RSA keys: one hop each.
func wrapKeys(st wire.Station, key *ecdsa.PrivateKey, cek []byte) (wire.WrappedKey, wire.Recipient, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return wire.WrappedKey{}, wire.Recipient{}, err
	}
	defer clear(der)
	spki, err := wire.SPKIOf(key.Public())
	if err != nil {
		return wire.WrappedKey{}, wire.Recipient{}, err
	}
	wrap := oaep
	if st.WrapAlg == wire.WrapRSAAES {
		wrap = rsaAES
	}
	blob, err := wrap(st.WrapKey, st.WrapAlg, der)
	if err != nil {
		return wire.WrappedKey{}, wire.Recipient{}, fmt.Errorf("wrapping key: %w", err)
	}
	content, err := oaep(st.ContentKey, st.ContentAlg, cek)
	if err != nil {
		return wire.WrappedKey{}, wire.Recipient{}, fmt.Errorf("content key: %w", err)
	}
	return wire.WrappedKey{Role: wire.RoleOrderCA, SPKI: spki, Alg: st.WrapAlg, Template: wire.SigningTemplate(), Blob: blob},
		wire.Recipient{Alg: st.ContentAlg, Blob: content}, nil
}

func oaep(spki []byte, alg wire.WrapAlg, plain []byte) ([]byte, error) {
	k, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return nil, err
	}
	pub, ok := k.(*rsa.PublicKey)
	if !ok || pub.N.BitLen() < 3072 {
		return nil, errors.New("want RSA of at least 3072 bits")
	}
	hash, err := alg.Hash()
	if err != nil {
		return nil, err
	}
	return rsa.EncryptOAEP(hash.New(), rand.Reader, pub, plain, nil)
}

// rsaAES wraps plain as CKM_RSA_AES_KEY_WRAP unwraps it: a fresh AES key under RSA, and behind it plain under that key (RFC 5649).
func rsaAES(spki []byte, alg wire.WrapAlg, plain []byte) ([]byte, error) {
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	defer clear(key)
	head, err := oaep(spki, alg, key)
	if err != nil {
		return nil, err
	}
	kwp, err := subtle.NewKWP(key)
	if err != nil {
		return nil, err
	}
	tail, err := kwp.Wrap(plain)
	if err != nil {
		return nil, err
	}
	return append(head, tail...), nil
}
