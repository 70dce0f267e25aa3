package wire

import (
	"bytes"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// held gives a transcript of n steps by two people with keys and one without, as a ceremony makes it.
func held(tb testing.TB, p people, n int) Transcript {
	tb.Helper()
	t := Transcript{
		Version: 1, Ceremony: "acme-1", OEM: "acme", Script: d32(1), Program: d32(2),
		People: []Participant{
			{Label: "alice", Part: PartCustodian, SPKI: p.role.Keys[0]},
			{Label: "bob", Part: PartCustodian, SPKI: p.role.Keys[1]},
			{Label: "carol", Part: PartWitness},
		},
	}
	prev := t.Head()
	for i := range n {
		s := Step{
			Prev: slices.Clone(prev[:]), Do: "make-key", Key: "k", SPKI: p.role.Keys[i%2], At: uint64(10 + i), By: []string{"alice", "carol"},
			Out: []Named{{Name: "k.pub", SHA256: d32(byte(i))}},
		}
		t.Steps = append(t.Steps, s)
		prev = s.Digest()
	}
	return t
}

func signTranscript(tb testing.TB, p people, t Transcript, typ Type, who ...int) []byte {
	tb.Helper()
	payload, err := Marshal(t) // not EncodeTranscript: what is wrong is to be found by the reader
	if err != nil {
		tb.Fatal(err)
	}
	return p.sign(tb, typ, payload, who...)
}

func TestATranscriptIsSignedByAllWhoHadAKey(t *testing.T) {
	p := newPeople(t, 2, 2)
	tr := held(t, p, 3)
	if got, err := OpenTranscript(signTranscript(t, p, tr, TypeTranscript, 0, 1)); err != nil || len(got.Steps) != 3 {
		t.Fatalf("%+v, %v", got, err)
	}
	for name, env := range map[string][]byte{
		"one of two":         signTranscript(t, p, tr, TypeTranscript, 0),
		"as a rehearsal's":   signTranscript(t, p, tr, Rehearsal(TypeTranscript), 0, 1),
		"as something other": signTranscript(t, p, tr, TypeBundle, 0, 1),
	} {
		if _, err := OpenTranscript(env); err == nil {
			t.Errorf("signed %s: opened", name)
		}
	}
	tr.Rehearsal = true
	prev := tr.Head()
	for i := range tr.Steps {
		tr.Steps[i].Prev = slices.Clone(prev[:])
		prev = tr.Steps[i].Digest()
	}
	if _, err := OpenTranscript(signTranscript(t, p, tr, TypeTranscript, 0, 1)); err == nil {
		t.Error("a rehearsal signed as the real thing was opened")
	}
	if got, err := OpenTranscript(signTranscript(t, p, tr, Rehearsal(TypeTranscript), 0, 1)); err != nil || !got.Rehearsal {
		t.Errorf("rehearsal: %v", err)
	}
}

// Whatever is done to the steps or to what is said of the ceremony, even by all signers together after the fact, the chain tells; unless
// it is made anew from there on, which the signatures tell.
func TestAStepThatIsChangedMissingOrMovedIsFound(t *testing.T) {
	p := newPeople(t, 2, 2)
	good := held(t, p, 8)
	if _, err := EncodeTranscript(good); err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		tr := good
		tr.Steps = slices.Clone(good.Steps)
		i := rapid.IntRange(0, len(tr.Steps)-2).Draw(t, "step") // the last one is held by the signatures alone
		switch rapid.SampledFrom([]string{"note", "time", "people", "files", "drop", "swap", "repeat", "head"}).Draw(t, "change") {
		case "note":
			tr.Steps[i].Note = "x" + rapid.StringMatching(`[a-z]{0,8}`).Draw(t, "note")
		case "time":
			tr.Steps[i].At--
		case "people":
			tr.Steps[i].By = []string{"bob"}
		case "files":
			tr.Steps[i].Out = nil
		case "drop":
			tr.Steps = slices.Delete(tr.Steps, i, i+1)
		case "swap":
			tr.Steps[i], tr.Steps[i+1] = tr.Steps[i+1], tr.Steps[i]
		case "repeat":
			tr.Steps = slices.Insert(tr.Steps, i, tr.Steps[i])
		case "head":
			tr.Script = d32(9)
		}
		data, err := Marshal(tr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeTranscript(data); err == nil {
			t.Fatal("not found")
		}
	})
	last := good
	last.Steps = slices.Clone(good.Steps)
	last.Steps[7].Note = "changed"
	if _, err := OpenTranscript(signTranscript(t, newPeople(t, 2, 2), last, TypeTranscript, 0, 1)); err == nil {
		t.Error("a last step signed by others was opened")
	}
}

func TestTranscriptsThatAreNotMade(t *testing.T) {
	p := newPeople(t, 2, 2)
	for name, change := range map[string]func(*Transcript){
		"nobody there":              func(t *Transcript) { t.People = nil },
		"one person alone":          func(t *Transcript) { t.People = t.People[:1] },
		"one key":                   func(t *Transcript) { t.People[1].SPKI = nil },
		"one person twice":          func(t *Transcript) { t.People[2].Label = "alice" },
		"a part nobody plays":       func(t *Transcript) { t.People[2].Part = "guest" },
		"a label that hides itself": func(t *Transcript) { t.People[2].Label = "a\u202eb" },
		"of no steps":               func(t *Transcript) { t.Steps = nil },
		"a step nobody saw":         func(t *Transcript) { t.Steps[0].By = nil },
		"a step a stranger saw":     func(t *Transcript) { t.Steps[len(t.Steps)-1].By = []string{"mallory"} },
	} {
		tr := held(t, p, 2)
		change(&tr)
		if _, err := EncodeTranscript(tr); err == nil {
			t.Errorf("%s: it was made", name)
		}
	}
}

func sampleCeremonyRequest(tb testing.TB) CeremonyRequest {
	tb.Helper()
	p := newPeople(tb, 2, 2)
	draft := sampleBundle(p.role, p.role)
	draft.Root, draft.Release, draft.Warrant, draft.Anchors = KeySet{}, KeySet{}, KeySet{}, nil
	return CeremonyRequest{
		OEM: "acme", Instance: "i", Purpose: "p", Issued: 1, CAs: [][]byte{{1}}, Draft: &draft, Approvers: []string{"alice", "bob"}, Threshold: 2, NewRoot: true,
	}
}

func TestADraftIsFilledAsItWasAsked(t *testing.T) {
	p := newPeople(t, 2, 2)
	r := sampleCeremonyRequest(t)
	b, err := r.Fill(p.role.Keys, []byte("root"))
	if err != nil || !bytes.Equal(b.Anchors[0], []byte("root")) || b.Root.Threshold != 2 || len(b.Warrant.Keys) != 2 {
		t.Fatalf("%+v, %v", b, err)
	}
	if _, err := r.Fill(p.role.Keys[:1], []byte("root")); err == nil {
		t.Error("filled with one key of two people")
	}
	for name, change := range map[string]func(*CeremonyRequest){
		"nothing asked for":         func(r *CeremonyRequest) { r.CAs, r.Draft, r.Approvers, r.Threshold = nil, nil, nil, 0 },
		"approvers of nothing":      func(r *CeremonyRequest) { r.Draft = nil },
		"more needed than there":    func(r *CeremonyRequest) { r.Threshold = 3 },
		"an approver of two names":  func(r *CeremonyRequest) { r.Approvers[1] = "alice" },
		"a draft that is no draft":  func(r *CeremonyRequest) { r.Draft.Root = p.role },
		"an anchor slipped in":      func(r *CeremonyRequest) { r.Draft.Anchors = [][]byte{{1}} },
		"a purpose nobody can read": func(r *CeremonyRequest) { r.Purpose = "\x1b[2K" },
	} {
		r := sampleCeremonyRequest(t)
		change(&r)
		if _, err := EncodeCeremonyRequest(r); err == nil {
			t.Errorf("%s: it was made", name)
		}
	}
}

func FuzzDecodeTranscript(f *testing.F) {
	p := newPeople(f, 2, 2)
	again(f, DecodeTranscript, EncodeTranscript, held(f, p, 3))
}

func FuzzDecodeCeremonyRequest(f *testing.F) {
	again(f, DecodeCeremonyRequest, EncodeCeremonyRequest, sampleCeremonyRequest(f))
}

func FuzzDecodeCeremonyAnswer(f *testing.F) {
	g, err := EncodeCAGrant(CAGrant{Request: d32(1), Chain: [][]byte{{1}, {2}}})
	if err != nil {
		f.Fatal(err)
	}
	again(f, DecodeCeremonyAnswer, EncodeCeremonyAnswer, CeremonyAnswer{Request: d32(1), Root: []byte{1}, Grants: [][]byte{g}, Bundle: []byte{2}})
}

func FuzzDecodeStep(f *testing.F) {
	again(f, DecodeStep, EncodeStep, held(f, newPeople(f, 2, 2), 1).Steps...)
}
