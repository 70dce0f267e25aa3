package ceremony

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/hallmark-iot/hallmark/wire"
)

// Cast is who holds the ceremony that is planned.
type Cast struct {
	Administrator string
	Custodians    []string // of the root, in shares; of the approvers' keys, one each
	Witnesses     []string
	Names         map[string]string // whole names by ID; may be empty
	Need          int               // how many custodians have the root
	Root          string            // name of the root's key; empty: oem-root
	Fresh         []string          // those whose own keys are not there yet and are made, in a ceremony that is not the first
	Tokens        map[string]Token  // whose own key is in which PKCS#11 token, by ID; the others' are in files
	RootHolder    string            // with RootToken: who has its PIN
	RootToken     *Token            // has the root, in the place of shares
}

// Brought is a file that the ceremony is about.
type Brought struct {
	Name string
	Data []byte
}

func (b Brought) file() File {
	d := Digest(b.Data)
	return File{Name: b.Name, SHA256: hex.EncodeToString(d[:])}
}

// The keys of a ceremony, by the names that init gives them in an offline directory too.
const rootKey = "oem-root"

// ApproverKey names an approver's key.
func ApproverKey(id string) string { return "approver-" + id }

func personKey(id string) string { return "person-" + id }

// begin writes down who takes part. Custodians sign the transcript with the keys they approve with; the others have keys for just that,
// which are made unless they are there already.
func (c Cast) begin(ceremony, oem, purpose string, made bool) Script {
	s := Script{Version: 1, Ceremony: ceremony, OEM: oem, Purpose: purpose}
	person := func(id, part, key string) {
		s.People = append(s.People, Person{ID: id, Name: c.Names[id], Part: part, Key: key})
		k := Key{Name: key, Holders: []string{id}}
		if t, ok := c.Tokens[id]; ok {
			k.PKCS11 = &t
		}
		s.Keys = append(s.Keys, k)
	}
	person(c.Administrator, wire.PartAdministrator, personKey(c.Administrator))
	for _, id := range c.Custodians {
		person(id, wire.PartCustodian, ApproverKey(id))
	}
	for _, id := range c.Witnesses {
		person(id, wire.PartWitness, personKey(id))
	}
	s.do(Step{Do: DoBeacon})
	for _, k := range s.Keys {
		if made || slices.Contains(c.Fresh, k.Holders[0]) {
			s.do(Step{Do: DoMakeKey, Key: k.Name})
		}
	}
	return s
}

func (s *Script) do(st Step) { s.Steps = append(s.Steps, st) }

func (c Cast) root() Key {
	k := Key{Name: cmp.Or(c.Root, rootKey), Holders: c.Custodians, Need: c.Need}
	if c.RootToken != nil {
		return Key{Name: k.Name, Holders: []string{c.RootHolder}, PKCS11: c.RootToken}
	}
	if len(c.Custodians) == 1 {
		k.Need = 0
	}
	return k
}

// makeRoot makes a root. Nothing is done with one in shares before it was restored from them once.
func (s *Script) makeRoot(k Key) {
	s.Keys = append(s.Keys, k)
	s.do(Step{Do: DoMakeKey, Key: k.Name})
	if len(k.Holders) > 1 {
		s.do(Step{Do: DoRestore, Key: k.Name})
	}
	s.do(Step{Do: DoRoot, Key: k.Name})
}

// PlanFirst is the ceremony that an instance is begun with: the people's keys, the root in shares, the CAs that the instance asks for, and
// its first trust bundle.
func PlanFirst(name string, request Brought, c Cast) (Script, error) {
	r, err := wire.DecodeCeremonyRequest(request.Data)
	if err != nil {
		return Script{}, fmt.Errorf("%s: %w", request.Name, err)
	}
	if !r.NewRoot || r.Draft == nil {
		return Script{}, errors.New("the request is not of a new instance: it asks for no root")
	}
	for _, a := range r.Approvers {
		if !slices.Contains(c.Custodians, a) {
			return Script{}, fmt.Errorf("approver %s of the request is not among the custodians", a)
		}
	}
	s := c.begin(name, r.OEM, r.Purpose, true)
	s.Files = []File{request.file()}
	s.makeRoot(c.root())
	s.do(Step{Do: DoGrant, Key: c.root().Name, File: request.Name})
	for _, a := range r.Approvers[:r.Threshold] {
		s.do(Step{Do: DoBundle, Key: ApproverKey(a), File: request.Name})
	}
	s.do(Step{Do: DoVerify})
	return s, s.check()
}

// PlanRequest is the ceremony that answers an instance's later requests: CAs to be signed by the root, and, for a product, its first trust
// bundle by as many custodians as it needs.
func PlanRequest(name string, request, root Brought, c Cast) (Script, error) {
	asked, err := OpenRequests(request.Data)
	if err != nil {
		return Script{}, fmt.Errorf("%s: %w", request.Name, err)
	}
	if len(asked) == 0 {
		return Script{}, fmt.Errorf("%s asks for no CA", request.Name)
	}
	s := c.begin(name, asked[0].OEM, asked[0].Purpose, false)
	s.Files = []File{request.file(), root.file()}
	s.Root = root.Name
	s.Keys = append(s.Keys, c.root())
	s.do(Step{Do: DoGrant, Key: c.root().Name, File: request.Name})
	if r, err := wire.DecodeCeremonyRequest(request.Data); err == nil && r.Draft != nil {
		need := int(r.Draft.Root.Threshold)
		if len(r.Approvers) > 0 {
			return Script{}, errors.New("the request wants new approvers: plan it as a first ceremony, or name the approvers of another product in it")
		}
		if need > len(c.Custodians) {
			return Script{}, fmt.Errorf("the trust bundle needs %d approvers, and there are %d custodians", need, len(c.Custodians))
		}
		for _, id := range c.Custodians[:need] {
			s.do(Step{Do: DoBundle, Key: ApproverKey(id), File: request.Name})
		}
	}
	s.do(Step{Do: DoVerify})
	return s, s.check()
}

// PlanApprover is the ceremony that replaces approvers: gone are named by their key IDs, fresh are custodians whose keys are made here.
// Enough custodians whose keys are in the current bundle sign, and enough of the next one.
func PlanApprover(name, oem, purpose string, current Brought, c Cast, fresh, gone []string) (Script, error) {
	b, err := wire.VerifyBundle(nil, current.Data)
	if err != nil {
		return Script{}, fmt.Errorf("%s: %w", current.Name, err)
	}
	if len(fresh) == 0 && len(gone) == 0 {
		return Script{}, errors.New("say who comes or who goes")
	}
	s := c.begin(name, oem, purpose, false)
	s.Files = []File{current.file()}
	add := []string{}
	for _, id := range fresh {
		if !slices.Contains(c.Custodians, id) {
			return Script{}, fmt.Errorf("%s comes, and is not among the custodians", id)
		}
		if !slices.Contains(c.Fresh, id) {
			s.do(Step{Do: DoMakeKey, Key: ApproverKey(id)})
		}
		add = append(add, ApproverKey(id))
	}
	s.do(Step{Do: DoChange, File: current.Name, Add: add, Remove: gone})
	old := 0
	for _, id := range c.Custodians { // all that are there sign: old ones for the current bundle, new ones for the next
		if !slices.Contains(fresh, id) {
			old++
		}
		s.do(Step{Do: DoBundle, Key: ApproverKey(id), File: NextName(current.Name), Current: current.Name})
	}
	if uint(old) < b.Root.Threshold {
		return Script{}, fmt.Errorf("%d of the current approvers take part, and %d must sign", old, b.Root.Threshold)
	}
	s.do(Step{Do: DoVerify})
	return s, s.check()
}

// PlanRoot is the ceremony that makes a new root beside the old one, for when that was stolen or is to end: key and certificate, and the
// CAs that are asked for under it. Devices believe it once a trust bundle has its certificate among the anchors.
func PlanRoot(name, oem, purpose string, requests []Brought, c Cast) (Script, error) {
	s := c.begin(name, oem, purpose, false)
	k := c.root()
	k.Name = cmp.Or(c.Root, rootKey+"-"+name)
	s.makeRoot(k)
	for _, r := range requests {
		if _, err := OpenRequests(r.Data); err != nil {
			return Script{}, fmt.Errorf("%s: %w", r.Name, err)
		}
		s.Files = append(s.Files, r.file())
		s.do(Step{Do: DoGrant, Key: k.Name, File: r.Name})
	}
	s.do(Step{Do: DoVerify})
	return s, s.check()
}

// PlanList is the ceremony that signs the root's list of revoked CAs.
func PlanList(name, oem string, request, root Brought, c Cast) (Script, error) {
	r, err := wire.DecodeCRLRequest(request.Data)
	if err != nil {
		return Script{}, fmt.Errorf("%s: %w", request.Name, err)
	}
	s := c.begin(name, oem, r.Purpose, false)
	s.Files = []File{request.file(), root.file()}
	s.Root = root.Name
	s.Keys = append(s.Keys, c.root())
	s.do(Step{Do: DoList, Key: c.root().Name, File: request.Name})
	s.do(Step{Do: DoVerify})
	return s, s.check()
}
