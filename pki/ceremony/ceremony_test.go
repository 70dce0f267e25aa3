package ceremony

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"slices"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/wire"
)

const script = `version: 1
ceremony: acme-first
purpose: the first one
oem: acme
people:
  - {id: adam, name: Adam Example, part: administrator, key: person-adam}
  - {id: alice, part: custodian, key: approver-alice}
keys:
  - {name: person-adam, holders: [adam]}
  - {name: approver-alice, suite: HM-MLDSA44-1, holders: [alice]}
  - {name: oem-root, holders: [adam, alice], need: 2}
steps:
  - do: beacon # dice
  - {do: make-key, key: person-adam}
  - {do: make-key, key: approver-alice}
  - {do: make-key, key: oem-root}
  - {do: restore, key: oem-root}
  - {do: make-root, key: oem-root}
  - {do: verify, by: [alice]}
`

func TestAScriptIsReadAsItStands(t *testing.T) {
	s, err := DecodeScript([]byte(script))
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Steps) != 7 || s.Keys[2].Need != 2 || !slices.Equal(s.Witnesses(s.Steps[6]), []string{"alice"}) || len(s.Witnesses(s.Steps[0])) != 2 {
		t.Fatalf("%+v", s)
	}
	data, err := EncodeScript(s)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := DecodeScript(data); err != nil || len(again.Steps) != 7 {
		t.Fatalf("%s\n%v", data, err)
	}
}

func TestScriptsThatAreNotHeld(t *testing.T) {
	for name, c := range map[string]struct{ old, new, want string }{
		"of another version":           {"version: 1", "version: 2", "version"},
		"an unknown member":            {"oem: acme", "oem: acme\nhurry: true", "hurry"},
		"a member said twice":          {"oem: acme", "oem: acme\noem: evil", "already defined"},
		"an anchor":                    {"purpose: the first one", "purpose: &x the first one", "anchors"},
		"an alias":                     {"purpose: the first one", "purpose: *x", "aliases"},
		"a tag":                        {"purpose: the first one", "purpose: !!binary aaaa", "tags"},
		"of a rehearsal's maker":       {"oem: acme", "oem: rehearsal.acme", "rehearsal"},
		"by one person":                {"  - {id: alice, part: custodian, key: approver-alice}\n", "", "nobody holds a ceremony alone"},
		"one key of their own":         {"part: custodian, key: approver-alice", "part: custodian", "want 2, to sign"},
		"somebody else's key":          {"key: person-adam}", "key: approver-alice}", "holds alone"},
		"a part that is not known":     {"part: custodian", "part: guest", "part"},
		"a share for a stranger":       {"holders: [adam, alice]", "holders: [adam, mallory]", "mallory"},
		"one holder alone of a shared": {"need: 2", "need: 1", "want 2 to 2"},
		"more needed than there are":   {"need: 2", "need: 3", "want 2 to 2"},
		"a step nobody knows":          {"do: verify", "do: celebrate", "nothing that is done"},
		"a step without its key":       {"{do: restore, key: oem-root}", "{do: restore}", "key: missing"},
		"a key where it means nothing": {"do: beacon", "{do: beacon, key: oem-root}", "means nothing"},
		"a key before it is made":      {"  - do: beacon # dice\n", "  - {do: make-root, key: oem-root}\n", "not there then"},
		"a key made twice":             {"{do: restore, key: oem-root}", "{do: make-key, key: oem-root}", "there already"},
		"two roots":                    {"{do: restore, key: oem-root}", "{do: make-root, key: oem-root}", "more than one root"},
		"a file that nobody brings":    {"{do: restore, key: oem-root}", "{do: grant, key: oem-root, file: x.ceremony}", "neither among the files"},
		"a file somewhere else":        {"steps:", "files:\n  - {name: ../x, sha256: " + strings.Repeat("00", 32) + "}\nsteps:", "plain name"},
		"a key's name somewhere else":  {"name: oem-root", "name: ../root", "want 1 to 48"},
		"restored from no shares":      {"{do: restore, key: oem-root}", "{do: restore, key: approver-alice}", "in no shares"},
		"a signer's key is destroyed":  {"{do: verify, by: [alice]}", "{do: destroy, key: approver-alice}", "destroyed"},
		"seen by a stranger":           {"by: [alice]", "by: [mallory]", "mallory"},
		"a name that moves the cursor": {"Adam Example", `"Adam\e[2K"`, "no line of words"},
		"a suite nobody knows":         {"suite: HM-MLDSA44-1", "suite: HM-ROT13-1", "HM-ROT13-1"},
		"a root without X.509 keys":    {"{name: oem-root,", "{name: oem-root, suite: HM-MLDSA44-1,", "signs certificates"},
		"a token of another suite":     {"suite: HM-MLDSA44-1", "suite: HM-MLDSA44-1, pkcs11: {module: m, token: t}", "no token makes keys"},
		"an id of a key that is to be": {"{name: oem-root,", "{name: oem-root, id: '" + strings.Repeat("0", 32) + "',", "made here"},
	} {
		text := strings.Replace(script, c.old, c.new, 1)
		if text == script {
			t.Fatalf("%s: nothing replaced", name)
		}
		if _, err := DecodeScript([]byte(text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func spki(t *testing.T) []byte {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// carriedOut gives a transcript of script, each step before all of its people.
func carriedOut(t *testing.T, change func(*wire.Transcript)) wire.Transcript {
	t.Helper()
	s, err := DecodeScript([]byte(script))
	if err != nil {
		t.Fatal(err)
	}
	d := Digest([]byte(script))
	tr := wire.Transcript{Version: 1, Ceremony: s.Ceremony, OEM: s.OEM, Script: d[:], Program: bytes.Repeat([]byte{1}, 32)}
	keys := map[string][]byte{}
	for _, k := range s.Keys {
		keys[k.Name] = spki(t)
	}
	for _, st := range s.Steps {
		tr.Steps = append(tr.Steps, wire.Step{Do: st.Do, Key: st.Key, SPKI: keys[st.Key], At: 1, By: s.Witnesses(st)})
	}
	for _, p := range s.People {
		tr.People = append(tr.People, wire.Participant{Label: p.ID, Part: p.Part, SPKI: keys[p.Key]})
	}
	if change != nil {
		change(&tr)
	}
	return tr
}

func TestATranscriptThatDoesNotFollowItsScript(t *testing.T) {
	if err := Follows(carriedOut(t, nil), []byte(script)); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*wire.Transcript){
		"another script":            func(t *wire.Transcript) { t.Script = bytes.Repeat([]byte{7}, 32) },
		"another ceremony":          func(t *wire.Transcript) { t.Ceremony = "x" },
		"a step left out":           func(t *wire.Transcript) { t.Steps = slices.Delete(t.Steps, 4, 5) },
		"a step more":               func(t *wire.Transcript) { t.Steps = append(t.Steps, t.Steps[5]) },
		"steps in another order":    func(t *wire.Transcript) { t.Steps[0], t.Steps[6] = t.Steps[6], t.Steps[0] },
		"with another key":          func(t *wire.Transcript) { t.Steps[5].Key = "person-adam" },
		"one did not look":          func(t *wire.Transcript) { t.Steps[3].By = []string{"adam"} },
		"one key became another":    func(t *wire.Transcript) { t.Steps[5].SPKI = t.Steps[1].SPKI },
		"it does not say which key": func(t *wire.Transcript) { t.Steps[5].SPKI = nil },
		"others took part":          func(t *wire.Transcript) { t.People[0].Label = "eve" },
		"in another part":           func(t *wire.Transcript) { t.People[0].Part = wire.PartWitness },
		"signed by another key":     func(t *wire.Transcript) { t.People[0].SPKI = t.Steps[3].SPKI },
	} {
		if err := Follows(carriedOut(t, change), []byte(script)); err == nil {
			t.Errorf("%s: it follows", name)
		}
	}
}

func FuzzDecodeScript(f *testing.F) {
	f.Add([]byte(script))
	f.Add([]byte(`{"version":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := DecodeScript(b)
		if err != nil {
			return
		}
		out, err := EncodeScript(s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeScript(out); err != nil {
			t.Fatalf("%s: %v", out, err)
		}
	})
}
