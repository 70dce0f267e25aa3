package ceremony

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/hallmark-iot/hallmark/wire"
)

// Follows checks that a transcript, whose signatures were checked, is of a ceremony held by this script: the same people in the same
// parts, every step in its order, by its key, before all whom it names.
func Follows(t wire.Transcript, script []byte) error {
	s, err := DecodeScript(script)
	if err != nil {
		return err
	}
	if d := Digest(script); [32]byte(t.Script) != d {
		return fmt.Errorf("the transcript is of the script with digest %x, this is %x", t.Script[:8], d[:8])
	}
	oem := s.OEM
	if t.Rehearsal {
		oem = wire.RehearsalOEM(oem)
	}
	if t.Ceremony != s.Ceremony || t.OEM != oem {
		return errors.New("the transcript is of another ceremony")
	}
	if len(t.People) != len(s.People) || len(t.Steps) != len(s.Steps) {
		return fmt.Errorf("%d people and %d steps, the script has %d and %d", len(t.People), len(t.Steps), len(s.People), len(s.Steps))
	}
	keys := map[string]string{} // by name: the key's ID, the same wherever it is used
	for i, want := range s.Steps {
		got := t.Steps[i]
		if got.Do != want.Do || got.Key != want.Key {
			return fmt.Errorf("step %d: %s %s, the script says %s %s", i+1, got.Do, got.Key, want.Do, want.Key)
		}
		for _, who := range s.Witnesses(want) {
			if !slices.Contains(got.By, who) {
				return fmt.Errorf("step %d (%s): %s did not see it", i+1, got.Do, who)
			}
		}
		if err := checkKeyOf(s, got, keys, t.Rehearsal); err != nil {
			return fmt.Errorf("step %d (%s): %w", i+1, got.Do, err)
		}
	}
	for i, want := range s.People {
		got := t.People[i]
		if got.Label != want.ID || got.Part != want.Part || (len(got.SPKI) > 0) != (want.Key != "") {
			return fmt.Errorf("%s (%s) took part, the script says %s (%s)", got.Label, got.Part, want.ID, want.Part)
		}
		if want.Key == "" {
			continue
		}
		if err := checkKeyOf(s, wire.Step{Key: want.Key, SPKI: got.SPKI}, keys, t.Rehearsal); err != nil {
			return fmt.Errorf("%s signed with another key: %w", got.Label, err)
		}
	}
	return nil
}

func checkKeyOf(s Script, got wire.Step, keys map[string]string, rehearsal bool) error {
	if got.Key == "" {
		return nil
	}
	if len(got.SPKI) == 0 {
		return errors.New("it does not say which key")
	}
	id := KeyID(got.SPKI)
	if had, ok := keys[got.Key]; ok && had != id {
		return fmt.Errorf("key %s was %s and is %s", got.Key, had, id)
	}
	if k, _ := s.KeyOf(got.Key); k.ID != "" && k.ID != id && !rehearsal {
		return fmt.Errorf("key %s is %s, the script wants %s", got.Key, id, k.ID)
	}
	keys[got.Key] = id
	return nil
}

// MadeAt checks that what an answer holds was made at the ceremony whose transcript t is: CAs, which end with the root, and the trust bundle
// are among the files of its steps.
func MadeAt(t wire.Transcript, a wire.CeremonyAnswer) error {
	for _, f := range []struct {
		what string
		data [][]byte
	}{{"CA", a.Grants}, {"trust bundle", [][]byte{a.Bundle}}} {
		for _, d := range f.data {
			if len(d) > 0 && !made(t, sha256.Sum256(d)) {
				return fmt.Errorf("a %s of the answer was not made at the ceremony", f.what)
			}
		}
	}
	return nil
}

func made(t wire.Transcript, sum [32]byte) bool {
	return slices.ContainsFunc(t.Steps, func(s wire.Step) bool {
		return slices.ContainsFunc(s.Out, func(f wire.Named) bool { return [32]byte(f.SHA256) == sum })
	})
}
