package audit

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
)

// Errors an auditor acts on.
var (
	// ErrPolicy says that whom to believe is not said, or said so that it would prove nothing.
	ErrPolicy = errors.New("whom to believe is not said properly")
	// ErrTruncated says that the log was longer once: entries are gone.
	ErrTruncated = errors.New("the log was cut")
	// ErrRewritten says that the log's beginning was another once.
	ErrRewritten = errors.New("the log was rewritten")
)

// check refuses a policy under which a log could verify that nobody witnessed.
func (p Policy) check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{ErrPolicy}, args...)...)
	}
	if p.Origin == "" {
		return bad("no origin")
	}
	if len(p.Key) != ed25519.PublicKeySize {
		return bad("the key of the log %s has %d bytes, want %d", p.Origin, len(p.Key), ed25519.PublicKeySize)
	}
	names := map[string]bool{}
	for i, w := range p.Witnesses {
		if err := w.sound(); err != nil {
			return bad("%w", err)
		}
		if p.Key.Equal(ed25519.PublicKey(w.Key)) {
			return bad("witness %s has the log's own key", w.Name)
		}
		for _, o := range p.Witnesses[:i] {
			if bytes.Equal(o.Key, w.Key) { // one witness under two names would count twice
				return bad("witnesses %s and %s have the same key", o.Name, w.Name)
			}
		}
		names[w.Name] = true
	}
	if p.Quorum < 1 || p.Quorum > len(names) {
		return bad("quorum %d, with %d witnesses; it must be at least 1, and at most that", p.Quorum, len(names))
	}
	return nil
}

// Trust is what an auditor needs to know beforehand of an instance's logs. Get it from a source you trust, not from the server you
// check.
type Trust struct {
	Logs      []TrustedLog `json:"logs"`
	Witnesses []Witness    `json:"witnesses"` // verifier keys
	Quorum    int          `json:"quorum"`
}

// TrustedLog is one log of it.
type TrustedLog struct {
	Name   string            `json:"name"` // its folder
	Origin string            `json:"origin"`
	Key    ed25519.PublicKey `json:"key"`
}

// maxTrust bounds a trust file.
const maxTrust = 64 << 10

var logName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,63}$`)

// DecodeTrust reads a trust file (JSON). A field that is unknown, misspelt, missing or there twice is an error, since each could make
// the auditor believe more than was meant; so is a policy that proves nothing.
func DecodeTrust(data []byte) (Trust, error) {
	var t Trust
	if len(data) > maxTrust {
		return t, fmt.Errorf("%d bytes, at most %d", len(data), maxTrust)
	}
	if err := fieldsOf(data); err != nil {
		return t, err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&t); err != nil {
		return t, err
	}
	if len(t.Logs) == 0 {
		return t, errors.New("no log")
	}
	for i, l := range t.Logs {
		twice := slices.ContainsFunc(t.Logs[:i], func(o TrustedLog) bool { return o.Name == l.Name || o.Origin == l.Origin })
		if !logName.MatchString(l.Name) || twice {
			return t, fmt.Errorf("log %q: not a name, or there twice", l.Name)
		}
		if err := t.Policy(i).check(); err != nil {
			return t, fmt.Errorf("log %s: %w", l.Name, err)
		}
	}
	return t, nil
}

// Policy is whom to believe about log i.
func (t Trust) Policy(i int) Policy {
	return Policy{Origin: t.Logs[i].Origin, Key: t.Logs[i].Key, Witnesses: t.Witnesses, Quorum: t.Quorum}
}

// fieldsOf refuses what encoding/json lets pass: a field twice, one in other letters, and something behind the document.
func fieldsOf(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := value(dec, 0); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the document")
	}
	return nil
}

func value(dec *json.Decoder, depth int) error {
	tok, err := dec.Token()
	delim, nested := tok.(json.Delim)
	if err != nil || !nested {
		return err
	}
	seen := map[string]bool{}
	for dec.More() {
		if delim == '{' {
			tok, err := dec.Token()
			if err != nil {
				return err
			}
			name, _ := tok.(string) // the decoder lets nothing else be a name
			if seen[name] {
				return fmt.Errorf("field %q is there twice", name)
			}
			seen[name] = true
			if depth == 0 && name != "logs" && name != "witnesses" && name != "quorum" {
				return fmt.Errorf("unknown field %q", name)
			}
		}
		if depth > 3 {
			return errors.New("nested too deep")
		}
		if err := value(dec, depth+1); err != nil {
			return err
		}
	}
	_, err = dec.Token()
	return err
}
