package factorytest_test

import (
	"bytes"
	"context"
	"crypto/hpke"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/factorytest"
	"github.com/hallmark-iot/hallmark/wire"
)

// opener is one who may wrap orders of masters.
func opener(t *testing.T) (public []byte, keys factory.Unsealer) {
	t.Helper()
	k, err := hpke.MLKEM768P256().GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	private, err := k.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	public = k.PublicKey().Bytes()
	return public, func(id []byte) ([]byte, error) {
		if !bytes.Equal(id, wire.SealKeyID(public)) {
			return nil, factory.ErrNotFound
		}
		return bytes.Clone(private), nil
	}
}

func masterSpec(o *factorytest.OEM, to ...[]byte) factory.MasterSpec {
	sbom, prov := sha256.Sum256([]byte("sbom")), sha256.Sum256([]byte("provenance"))
	return factory.MasterSpec{
		OEM: o.ID, Product: factorytest.Product, Hardware: factorytest.Hardware, Revision: 7, Bundle: o.Bundle, Release: o.Release, Params: factorytest.Params(),
		SBOM: sbom[:], Provenance: prov[:], Payload: factory.InMemory(o.Payload), To: to,
	}
}

func built(t *testing.T, o *factorytest.OEM, spec factory.MasterSpec) []byte {
	t.Helper()
	m, err := factory.BuildMaster(t.Context(), spec, o.Approver(), o.Now)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := m.WriteFile(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	if m.Size() != int64(b.Len()) {
		t.Errorf("the file has %d bytes, said to be %d", b.Len(), m.Size())
	}
	return b.Bytes()
}

// taken reads a master as one who wraps orders of it does.
func taken(o *factorytest.OEM, file []byte, keys factory.Unsealer) (*factory.OpenedMaster, error) {
	head, _, err := factory.CheckMaster(bytes.NewReader(file))
	if err != nil {
		return nil, err
	}
	return factory.OpenMaster(o.ID, o.Bundle, head, keys)
}

// A master gives back, component by component, what was put in it, in whatever order it is asked.
func TestAMasterGivesWhatWasPutIn(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	public, keys := opener(t)
	file := built(t, o, masterSpec(o, public))
	for name, content := range o.Payload {
		if bytes.Contains(file, content[:16]) {
			t.Errorf("%s can be read in the file", name)
		}
	}
	m, err := taken(o, file, keys)
	if err != nil {
		t.Fatal(err)
	}
	src := m.Source(bytes.NewReader(file))
	for _, name := range []string{"assets", "app", "assets"} {
		r, err := src(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, o.Payload[name]) {
			t.Errorf("%s: %d bytes of %d, %v", name, len(got), len(o.Payload[name]), err)
		}
	}
	if _, err := src(t.Context(), "loader"); err == nil {
		t.Error("a component that is not in it")
	}
	if m.Header.Revision != 7 || m.Params.Servers.Device != factorytest.Params().Servers.Device {
		t.Errorf("%+v", m.Header)
	}
	s, _ := softStation(t, "st-1", o)
	d, err := s.Descriptor(o.ID, o.Now)
	if err != nil {
		t.Fatal(err)
	}
	spec := o.Spec("ord-1", 1, d, s.ID())
	spec.Bundle, spec.Release, spec.Params = nil, nil, wire.DeviceParams{}
	if spec, err = m.Spec(spec); err != nil {
		t.Fatal(err)
	}
	spec.Payload = src
	w, _, err := o.Service.CreateOrder(t.Context(), o.Caller, spec)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Import(bytes.NewReader(factorytest.Bytes(t, w)), o.Now); err != nil {
		t.Fatal(err)
	}
	piece := factorytest.NewPiece()
	if rep, _, err := run(t, o, s, "ord-1", 1, piece); err != nil || rep.Made != 1 || !bytes.Equal(piece.Part("app"), o.Payload["app"]) {
		t.Errorf("%+v, %v", rep, err)
	}
}

// Not a bit of a master can be changed, nothing left out, twice, in another place or behind the end.
func TestAChangedMasterIsRefused(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	public, keys := opener(t)
	file := built(t, o, masterSpec(o, public))
	if _, err := taken(o, file, keys); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(file); i += max(len(file)/600, 1) {
		b := bytes.Clone(file)
		b[i] ^= 1 << (i % 8)
		if _, err := taken(o, b, keys); err == nil {
			t.Fatalf("taken with byte %d changed", i)
		}
	}
	f, err := wire.DecodeOrderFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(f *wire.OrderFile){
		"swapped": func(f *wire.OrderFile) { f.Payload[0], f.Payload[1] = f.Payload[1], f.Payload[0] },
		"dropped": func(f *wire.OrderFile) { f.Payload = f.Payload[1:] },
		"twice":   func(f *wire.OrderFile) { f.Payload = slices.Insert(f.Payload, 0, f.Payload[0]) },
	} {
		g := f
		g.Payload = slices.Clone(f.Payload)
		change(&g)
		b, err := wire.EncodeOrderFile(g)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := taken(o, b, keys); err == nil {
			t.Errorf("taken with a chunk %s", name)
		}
	}
	for n := 0; n < len(file); n += max(len(file)/50, 1) {
		if _, err := taken(o, file[:n], keys); err == nil {
			t.Errorf("taken with %d bytes of %d", n, len(file))
		}
	}
	if _, err := taken(o, append(bytes.Clone(file), 0), keys); err == nil {
		t.Error("taken with a byte behind its end")
	}
}

// Whose master it is not, who may not open it, and what it is not for.
func TestWhoseMasterIsNotTaken(t *testing.T) {
	o, other := factorytest.NewOEM(t, "acme"), factorytest.NewOEM(t, "acme")
	public, keys := opener(t)
	_, others := opener(t)
	file := built(t, o, masterSpec(o, public))
	_, err := taken(o, file, others)
	wantCode(t, err, "master.sealed")
	_, err = taken(other, file, keys)
	wantCode(t, err, "master.approver")
	elsewhere := *o
	elsewhere.ID = "evil"
	_, err = taken(&elsewhere, file, keys)
	wantCode(t, err, "master.oem")
	// The approvers are still the same in a newer trust bundle: but it is not what was signed.
	newer := *o
	newer.NextBundle(t)
	_, err = taken(&newer, file, keys)
	wantCode(t, err, "master.bundle")
	m, err := taken(o, file, keys)
	if err != nil {
		t.Fatal(err)
	}
	for _, spec := range []factory.OrderSpec{{Product: "valve", Hardware: factorytest.Hardware}, {Product: factorytest.Product, Hardware: "rev-z"}} {
		_, err = m.Spec(spec)
		wantCode(t, err, "master.product")
	}
	// A release that one forged with the approver's own master signature around it: the release's threshold is its own.
	spec := masterSpec(o, public)
	spec.Release = other.Release
	_, err = factory.BuildMaster(t.Context(), spec, o.Approver(), o.Now)
	wantCode(t, err, "master.invalid")
	_, err = factory.BuildMaster(t.Context(), masterSpec(o, public), factorytest.Key(t), o.Now)
	wantCode(t, err, "master.approver")
}

// What a build lacks, and what is not the approvers'.
func TestABuildThatIsNoMaster(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	public, _ := opener(t)
	for name, change := range map[string]func(s *factory.MasterSpec){
		"no SBOM":          func(s *factory.MasterSpec) { s.SBOM = nil },
		"no provenance":    func(s *factory.MasterSpec) { s.Provenance = nil },
		"no revision":      func(s *factory.MasterSpec) { s.Revision = 0 },
		"nobody":           func(s *factory.MasterSpec) { s.To = nil },
		"no key":           func(s *factory.MasterSpec) { s.To = [][]byte{[]byte("key")} },
		"hardware":         func(s *factory.MasterSpec) { s.Hardware = "rev-z" },
		"product":          func(s *factory.MasterSpec) { s.Product = "valve" },
		"no parameters":    func(s *factory.MasterSpec) { s.Params = wire.DeviceParams{} },
		"a slot too small": func(s *factory.MasterSpec) { s.Params.Flash.SlotSize = 4096 },
		"another file": func(s *factory.MasterSpec) {
			s.Payload = factory.InMemory(map[string][]byte{"app": {1}, "assets": {2}})
		},
		"a file less": func(s *factory.MasterSpec) { s.Payload = factory.InMemory(map[string][]byte{"app": o.Payload["app"]}) },
		"a file that changes": func(s *factory.MasterSpec) {
			reads := 0
			s.Payload = func(_ context.Context, name string) (io.ReadCloser, error) {
				if reads++; reads == 3 {
					return nil, errors.New("the disk is gone")
				}
				return factory.InMemory(o.Payload)(t.Context(), name)
			}
		},
	} {
		spec := masterSpec(o, public)
		change(&spec)
		if _, err := factory.BuildMaster(t.Context(), spec, o.Approver(), o.Now); err == nil {
			t.Errorf("%s: built", name)
		} else {
			t.Log(name, err)
		}
	}
}

// A large master is built, checked and read in memory that does not grow with it.
func TestALargeMasterTakesLittleMemory(t *testing.T) {
	const size = 96<<20 + 11
	o := factorytest.NewOEM(t, "acme")
	public, keys := opener(t)
	sum := sha256.New()
	if _, err := io.Copy(sum, &zeros{size}); err != nil {
		t.Fatal(err)
	}
	o.Publish(t, wire.Component{Name: "app", Kind: wire.KindExec, Version: "2.0.0", Size: size, Digest: sum.Sum(nil), Health: wire.HealthAlive})
	spec := masterSpec(o, public)
	spec.Params.Flash = wire.Flash{Size: 512 << 20, Erase: 4096, Slots: 2, SlotSize: 256 << 20}
	spec.Payload = func(context.Context, string) (io.ReadCloser, error) { return &zeros{size}, nil }
	before := heap()
	m, err := factory.BuildMaster(t.Context(), spec, o.Approver(), o.Now)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "master"))
	if err == nil {
		err = m.WriteFile(t.Context(), f)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	watch := &peak{r: io.NewSectionReader(f, 0, m.Size())}
	head, _, err := factory.CheckMaster(watch)
	if err != nil {
		t.Fatal(err)
	}
	open, err := factory.OpenMaster(o.ID, o.Bundle, head, keys)
	if err != nil {
		t.Fatal(err)
	}
	r, err := open.Source(f)(t.Context(), "app")
	if err != nil {
		t.Fatal(err)
	}
	second := &peak{r: r}
	got := sha256.New()
	if _, err := io.Copy(got, second); err != nil || !bytes.Equal(got.Sum(nil), sum.Sum(nil)) {
		t.Fatalf("it is not what was put in: %v", err)
	}
	if worst := slices.Max(append(watch.sizes, second.sizes...)); worst > before+24<<20 {
		t.Errorf("%d bytes in use at once for a master of %d, %d before", worst, m.Size(), before)
	}
}

// A master that was given is ordered of by its digest, for as long as it may be, and keeps the documents that it names and no others.
func TestAMasterIsKeptWithItsDocuments(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	seal, err := o.Seal.Public()
	if err != nil {
		t.Fatal(err)
	}
	file := built(t, o, masterSpec(o, seal))
	changed := bytes.Clone(file)
	changed[40] ^= 1
	for what, c := range map[string]struct {
		begin []byte
		who   access.Role
	}{"an altered one": {changed, access.Factory}, "the first half of its head": {file[:200], access.Factory}, "from who only reads": {file, access.Viewer}} {
		caller := o.Caller
		caller.Roles = []access.Role{c.who}
		if _, err := o.Service.TakeMaster(t.Context(), caller, factorytest.Product, c.begin, o.Bundle); err == nil {
			t.Errorf("%s was taken in", what)
		}
	}
	if _, err := o.Service.TakeMaster(t.Context(), o.Caller, "valve", file, o.Bundle); err == nil {
		t.Error("it was taken in for another product")
	}
	if all, err := o.Service.Masters(t.Context(), o.Caller, "", "", 0); err != nil || len(all) != 0 {
		t.Fatalf("of what was refused is kept: %+v, %v", all, err)
	}
	m, err := o.Service.TakeMaster(t.Context(), o.Caller, factorytest.Product, file, o.Bundle) // with more of the file than its head
	if err != nil || m.WhyNot != "" || m.Revision != 7 || m.SBOM.Size != 0 {
		t.Fatalf("%+v, %v", m, err)
	}
	if again, err := o.Service.TakeMaster(t.Context(), o.Caller, factorytest.Product, file, o.Bundle); err != nil || again.Created != m.Created {
		t.Errorf("taken again: %+v, %v", again, err)
	}
	for what, bad := range map[string]string{"another document": "sbom2", "nothing": "", "its beginning": "sbo"} {
		if _, err := o.Service.GiveDocument(t.Context(), o.Caller, m.Digest, factory.SBOM, strings.NewReader(bad)); err == nil {
			t.Errorf("%s was taken for the SBOM", what)
		}
	}
	if _, err := o.Service.OpenDocument(t.Context(), o.Caller, m.Digest, factory.SBOM); fault.KindOf(err) != fault.NotFound {
		t.Errorf("a document that is not here: %v", err)
	}
	if m, err = o.Service.GiveDocument(t.Context(), o.Caller, m.Digest, factory.SBOM, strings.NewReader("sbom")); err != nil || m.SBOM.Size != 4 || m.Provenance.Size != 0 {
		t.Fatalf("%+v, %v", m, err)
	}
	f, err := o.Service.OpenDocument(t.Context(), o.Caller, m.Digest, factory.SBOM)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(f)
	if err = errors.Join(err, f.Close()); err != nil || string(got) != "sbom" {
		t.Errorf("it came back as %q, %v", got, err)
	}

	s, _ := softStation(t, "st-1", o)
	d, err := s.Descriptor(o.ID, o.Now)
	if err != nil {
		t.Fatal(err)
	}
	spec := o.Spec("ord-1", 1, d, s.ID())
	spec.Master, spec.Params = m.Head, wire.DeviceParams{}
	if _, order, err := o.Service.CreateOrder(t.Context(), o.Caller, spec); err != nil || order.Master == nil || order.Master.Digest != m.Digest {
		t.Fatalf("%+v, %v", order.Master, err)
	}
	newer := masterSpec(o, seal)
	newer.Revision = 8
	o.Now = o.Now.Add(time.Minute)
	spec = o.Spec("ord-2", 1, d, s.ID())
	spec.Master, spec.Params = built(t, o, newer), wire.DeviceParams{}
	if _, _, err := o.Service.CreateOrder(t.Context(), o.Caller, spec); err != nil {
		t.Fatal(err)
	}
	all, err := o.Service.Masters(t.Context(), o.Caller, factorytest.Product, "", 0)
	if err != nil || len(all) != 2 || all[0].Revision != 8 || all[0].WhyNot != "" || all[0].SBOM.Size != 4 || !strings.Contains(all[1].WhyNot, "orders were made of revision 8") {
		t.Errorf("%+v, %v", all, err)
	}
	if page, err := o.Service.Masters(t.Context(), o.Caller, "", all[0].Digest, 1); err != nil || len(page) != 1 || page[0].Digest != m.Digest {
		t.Errorf("behind the first: %+v, %v", page, err)
	}
	o.NextBundle(t)
	if m, err := o.Service.Master(t.Context(), o.Caller, all[0].Digest); err != nil || !strings.Contains(m.WhyNot, "not in force any more") {
		t.Errorf("of an older trust bundle: %+v, %v", m.WhyNot, err)
	}
}
