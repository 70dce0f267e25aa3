// Package ceremony is what a key ceremony is made of: its script, what is signed at it, and how its transcript is held against both.
//
// Stage 2, birth: the OEM root and the approvers' keys decide over everything that comes after, and lie offline. What is done with them
// is written down beforehand (Script), rehearsed, done before witnesses, and told afterwards by a chain of steps that all of them sign
// (wire.Transcript). This package opens no file and asks nobody; internal/rite does. It trusts the machine that the ceremony is held on,
// whose program is named in the transcript, and no single person.
package ceremony

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/token"

	"github.com/hallmark-iot/hallmark/suite"
	"github.com/hallmark-iot/hallmark/wire"
)

// Script is what is to be done at a ceremony, by whom, in which order: YAML that people read and agree on beforehand.
type Script struct {
	Version  int      `yaml:"version"`  // 1
	Ceremony string   `yaml:"ceremony"` // its name: lower-case letters, digits, '-' and '.'
	Purpose  string   `yaml:"purpose"`  // why it is held, one line
	OEM      string   `yaml:"oem"`
	People   []Person `yaml:"people"`
	Keys     []Key    `yaml:"keys"`
	Files    []File   `yaml:"files,omitempty"` // what is brought to it, by digest; they lie beside the script
	Root     string   `yaml:"root,omitempty"`  // file that holds the OEM root's certificate, where no step makes it
	Steps    []Step   `yaml:"steps"`
}

// Person takes part.
type Person struct {
	ID   string `yaml:"id"`             // label in the transcript, which is public
	Name string `yaml:"name,omitempty"` // the whole name: private, beside the ledger
	Part string `yaml:"part"`           // administrator, custodian or witness
	Key  string `yaml:"key,omitempty"`  // own key, which signs the transcript
}

// Key is a key that the ceremony makes or uses.
type Key struct {
	Name    string   `yaml:"name"`
	Holders []string `yaml:"holders"`          // one: under that person's passphrase; several: in shares
	Need    int      `yaml:"need,omitempty"`   // how many of several holders have it
	ID      string   `yaml:"id,omitempty"`     // key ID of one that is there already (hex): the right key is used, or none
	Suite   string   `yaml:"suite,omitempty"`  // of a key that is made here; left out: HM-P256-1
	PKCS11  *Token   `yaml:"pkcs11,omitempty"` // in a module instead of a file; its PIN takes the passphrase's place
}

// Token says where a key in a PKCS#11 module is.
type Token struct {
	Module string `yaml:"module"` // the library's path
	Token  string `yaml:"token"`  // the token's label
}

// File is something brought to the ceremony.
type File struct {
	Name   string `yaml:"name"`
	SHA256 string `yaml:"sha256"` // hex
}

// Step is one thing to do.
type Step struct {
	Do      string   `yaml:"do"`
	Key     string   `yaml:"key,omitempty"`
	File    string   `yaml:"file,omitempty"`    // one of Files, or what a step before has made
	Current string   `yaml:"current,omitempty"` // sign-bundle: the bundle that it follows, signed
	Add     []string `yaml:"add,omitempty"`     // change-approvers: keys that come in
	Remove  []string `yaml:"remove,omitempty"`  // change-approvers: key IDs (hex) that go
	By      []string `yaml:"by,omitempty"`      // who must have seen it; left out: everybody
}

// What a step does.
const (
	DoBeacon  = "beacon"           // people throw dice, or type a newspaper's headline: shows that nothing was made beforehand
	DoMakeKey = "make-key"         // makes Key for its holders
	DoRestore = "restore"          // proves that shares of Key restore it
	DoRoot    = "make-root"        // makes the OEM root's certificate over Key
	DoGrant   = "grant"            // signs the CAs that File asks for, by the root
	DoList    = "sign-list"        // signs the list of revoked CAs that File asks for, by the root
	DoChange  = "change-approvers" // makes the next trust bundle of the one in File, with other approvers
	DoBundle  = "sign-bundle"      // signs the trust bundle in File, or the draft in a request, by Key
	DoVerify  = "verify"           // reads everything again that was made, and checks it
	DoDestroy = "destroy"          // destroys Key
)

// maxScript bounds a script's bytes, and the rest what is in it.
const (
	maxScript = 64 << 10
	maxPeople = 16
	maxKeys   = 32
	maxSteps  = 96
)

// Digest names a script.
func Digest(script []byte) [32]byte { return sha256.Sum256(script) }

// DecodeScript reads a script. Members it does not know, repeated ones, and YAML's anchors, aliases and tags are refused: what is agreed on
// must be what stands there.
func DecodeScript(data []byte) (Script, error) {
	if len(data) > maxScript {
		return Script{}, fmt.Errorf("script: %d bytes, at most %d", len(data), maxScript)
	}
	for _, t := range lexer.Tokenize(string(data)) {
		switch t.Type { //nolint:exhaustive // the rest is plain
		case token.AnchorType, token.AliasType, token.TagType, token.MergeKeyType, token.DirectiveType:
			return Script{}, fmt.Errorf("script: line %d: %q: anchors, aliases, tags and directives are refused", t.Position.Line, t.Value)
		}
	}
	var s Script
	if err := yaml.UnmarshalWithOptions(data, &s, yaml.Strict()); err != nil {
		return Script{}, fmt.Errorf("script: %s", yaml.FormatError(err, false, false))
	}
	if err := s.check(); err != nil {
		return Script{}, fmt.Errorf("script: %w", err)
	}
	return s, nil
}

// EncodeScript writes s.
func EncodeScript(s Script) ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("script: %w", err)
	}
	return yaml.MarshalWithOptions(s, yaml.IndentSequence(true))
}

func (s Script) check() error {
	switch {
	case s.Version != 1:
		return fmt.Errorf("version %d, want 1", s.Version)
	case !wire.ValidName(s.Ceremony) || !wire.ValidName(s.OEM):
		return fmt.Errorf("ceremony %q of OEM %q: want lower-case letters, digits, '-' and '.'", s.Ceremony, s.OEM)
	case wire.IsRehearsalOEM(s.OEM):
		return fmt.Errorf("OEM %q: the name of a rehearsal; a script is rehearsed by `hallmark ceremony rehearse`", s.OEM)
	case !line(s.Purpose, 512):
		return errors.New("purpose: want one line of words")
	case len(s.Keys) > maxKeys || len(s.Steps) == 0 || len(s.Steps) > maxSteps:
		return fmt.Errorf("%d keys and %d steps: want at most %d, and 1 to %d", len(s.Keys), len(s.Steps), maxKeys, maxSteps)
	}
	for _, part := range []func() error{s.checkPeople, s.checkKeys, s.checkFiles} {
		if err := part(); err != nil {
			return err
		}
	}
	return s.checkSteps()
}

func (s Script) checkPeople() error {
	if len(s.People) < 2 || len(s.People) > maxPeople {
		return fmt.Errorf("%d people: want 2 to %d, because nobody holds a ceremony alone", len(s.People), maxPeople)
	}
	signers := 0
	for i, p := range s.People {
		if !name(p.ID) || slices.ContainsFunc(s.People[:i], func(o Person) bool { return strings.EqualFold(o.ID, p.ID) }) {
			return fmt.Errorf("person %q: want 1 to 48 letters, digits and ._@-, each once", p.ID)
		}
		if p.Name != "" && !line(p.Name, 128) {
			return fmt.Errorf("person %s: the name is no line of words", p.ID)
		}
		if !slices.Contains([]string{wire.PartAdministrator, wire.PartCustodian, wire.PartWitness}, p.Part) {
			return fmt.Errorf("person %s: part %q: want administrator, custodian or witness", p.ID, p.Part)
		}
		if p.Key == "" {
			continue
		}
		signers++
		k, ok := s.KeyOf(p.Key)
		if !ok || len(k.Holders) != 1 || k.Holders[0] != p.ID {
			return fmt.Errorf("person %s: key %q is not a key that %s holds alone", p.ID, p.Key, p.ID)
		}
		if i := slices.IndexFunc(s.People[:i], func(o Person) bool { return o.Key == p.Key }); i >= 0 {
			return fmt.Errorf("person %s: key %q is that of %s", p.ID, p.Key, s.People[i].ID)
		}
	}
	if signers < 2 {
		return fmt.Errorf("%d of the people have a key of their own: want 2, to sign the transcript", signers)
	}
	return nil
}

func (s Script) checkKeys() error {
	for i, k := range s.Keys {
		if !name(k.Name) || slices.ContainsFunc(s.Keys[:i], func(o Key) bool { return o.Name == k.Name }) {
			return fmt.Errorf("key %q: want 1 to 48 letters, digits and ._@-, each once", k.Name)
		}
		for j, h := range k.Holders {
			if !s.has(h) || slices.Contains(k.Holders[:j], h) {
				return fmt.Errorf("key %s: holder %q takes no part, or is named twice", k.Name, h)
			}
		}
		switch {
		case len(k.Holders) == 0 || len(k.Holders) == 1 && k.Need != 0:
			return fmt.Errorf("key %s: want one holder, or several and how many of them it needs", k.Name)
		case len(k.Holders) > 1 && (k.Need < 2 || k.Need > len(k.Holders)):
			return fmt.Errorf("key %s: needs %d of %d holders: want 2 to %d", k.Name, k.Need, len(k.Holders), len(k.Holders))
		case k.PKCS11 != nil && (len(k.Holders) != 1 || k.PKCS11.Module == "" || k.PKCS11.Token == ""):
			return fmt.Errorf("key %s: a key in a module has one holder, a module and a token", k.Name)
		case k.PKCS11 != nil && slices.ContainsFunc(s.Keys[:i], func(o Key) bool { return o.PKCS11 != nil && *o.PKCS11 == *k.PKCS11 && o.Holders[0] != k.Holders[0] }):
			return fmt.Errorf("key %s: token %s holds a key of somebody else, and whoever has its PIN has both", k.Name, k.PKCS11.Token)
		}
		if err := s.checkSuite(k); err != nil {
			return err
		}
		if k.ID != "" && !hexOf(k.ID, 16) {
			return fmt.Errorf("key %s: id %q: want 32 hex digits", k.Name, k.ID)
		}
		if k.ID != "" && s.makes(k.Name) {
			return fmt.Errorf("key %s: it is made here, and cannot have an id yet", k.Name)
		}
	}
	return nil
}

// checkSuite: certificates are ECDSA in every suite, and so are keys in tokens.
func (s Script) checkSuite(k Key) error {
	if k.Suite == "" {
		return nil
	}
	set, err := suite.Get(suite.ID(k.Suite))
	if err != nil {
		return fmt.Errorf("key %s: %w", k.Name, err)
	}
	if !s.makes(k.Name) {
		return fmt.Errorf("key %s: it is there already, and has the suite that it has", k.Name)
	}
	if !set.Quantum {
		return nil
	}
	if k.PKCS11 != nil {
		return fmt.Errorf("key %s: no token makes keys of suite %s", k.Name, k.Suite)
	}
	for _, st := range s.Steps {
		if st.Key == k.Name && slices.Contains([]string{DoRoot, DoGrant, DoList}, st.Do) {
			return fmt.Errorf("key %s: %s signs certificates, which have no keys of suite %s", k.Name, st.Do, k.Suite)
		}
	}
	return nil
}

// MadeOf is the suite of a key that the ceremony makes.
func (k Key) MadeOf() suite.ID { return suite.ID(cmp.Or(k.Suite, string(suite.P256))) }

func (s Script) checkFiles() error {
	for i, f := range s.Files {
		if !fileName(f.Name) || !hexOf(f.SHA256, 32) || slices.ContainsFunc(s.Files[:i], func(o File) bool { return o.Name == f.Name }) {
			return fmt.Errorf("file %q: want a plain name, each once, and its sha256 as 64 hex digits", f.Name)
		}
	}
	if s.Root != "" && !s.brings(s.Root) {
		return fmt.Errorf("root: %q is not among the files", s.Root)
	}
	return nil
}

// needs says which members a step has beside do and by.
func needs() map[string][]string {
	return map[string][]string{
		DoBeacon: {}, DoMakeKey: {"key"}, DoRestore: {"key"}, DoRoot: {"key"}, DoGrant: {"key", "file"}, DoList: {"key", "file"},
		DoChange: {"file", "add", "remove"}, DoBundle: {"key", "file", "current"}, DoVerify: {}, DoDestroy: {"key"},
	}
}

func (s Script) checkSteps() error {
	made, roots := map[string]bool{}, 0 // keys as they are there after the steps so far
	for _, k := range s.Keys {
		made[k.Name] = !s.makes(k.Name)
	}
	files := map[string]bool{}
	for _, f := range s.Files {
		files[f.Name] = true
	}
	for i, st := range s.Steps {
		if err := s.checkStep(st); err != nil {
			return fmt.Errorf("step %d (%s): %w", i+1, st.Do, err)
		}
		fail := func(format string, args ...any) error {
			return fmt.Errorf("step %d (%s): "+format, append([]any{i + 1, st.Do}, args...)...)
		}
		if st.Key != "" && made[st.Key] == (st.Do == DoMakeKey) {
			return fail("key %s is not there then, or is there already", st.Key)
		}
		for _, f := range []string{st.File, st.Current} {
			if f != "" && !files[f] {
				return fail("%q is neither among the files nor made by a step before", f)
			}
		}
		switch st.Do {
		case DoMakeKey:
			made[st.Key] = true
		case DoDestroy:
			made[st.Key] = false
		case DoRoot:
			roots++
		case DoGrant, DoList:
			if roots == 0 && s.Root == "" {
				return fail("there is no root: name its certificate (root: FILE), or make one before")
			}
		case DoChange:
			files[NextName(st.File)] = true
		}
	}
	if roots > 1 || roots == 1 && s.Root != "" && s.grants() {
		return errors.New("more than one root: a ceremony signs by one")
	}
	for _, p := range s.People {
		if p.Key != "" && !made[p.Key] {
			return fmt.Errorf("the key of %s is destroyed or never made, and signs the transcript at the end", p.ID)
		}
	}
	return nil
}

func (s Script) grants() bool {
	return slices.ContainsFunc(s.Steps, func(st Step) bool { return st.Do == DoGrant || st.Do == DoList })
}

func (s Script) checkStep(st Step) error {
	want, ok := needs()[st.Do]
	if !ok {
		return errors.New("nothing that is done at a ceremony")
	}
	for _, m := range []struct {
		name     string
		set      bool
		optional bool
	}{
		{"key", st.Key != "", false},
		{"file", st.File != "", false},
		{"current", st.Current != "", true},
		{"add", len(st.Add) > 0, true},
		{"remove", len(st.Remove) > 0, true},
	} {
		if allowed := slices.Contains(want, m.name); m.set && !allowed || !m.set && allowed && !m.optional {
			return fmt.Errorf("%s: missing, or means nothing here", m.name)
		}
	}
	if st.Key != "" {
		if _, ok := s.KeyOf(st.Key); !ok {
			return fmt.Errorf("key %q is not among the keys", st.Key)
		}
	}
	for _, k := range st.Add {
		if _, ok := s.KeyOf(k); !ok {
			return fmt.Errorf("add: key %q is not among the keys", k)
		}
	}
	for _, id := range st.Remove {
		if !hexOf(id, 16) {
			return fmt.Errorf("remove: %q: want a key ID of 32 hex digits", id)
		}
	}
	for i, who := range st.By {
		if !s.has(who) || slices.Contains(st.By[:i], who) {
			return fmt.Errorf("by: %q takes no part, or is named twice", who)
		}
	}
	if k, _ := s.KeyOf(st.Key); st.Do == DoRestore && len(k.Holders) < 2 {
		return fmt.Errorf("key %s is in no shares", st.Key)
	}
	return nil
}

// NextName is the file that change-approvers makes of the bundle in file.
func NextName(file string) string {
	base, _, _ := strings.Cut(file, ".")
	return base + ".next.payload"
}

// KeyOf finds a key.
func (s Script) KeyOf(name string) (Key, bool) {
	i := slices.IndexFunc(s.Keys, func(k Key) bool { return k.Name == name })
	if i < 0 {
		return Key{}, false
	}
	return s.Keys[i], true
}

// Witnesses of a step: whom it names, or everybody.
func (s Script) Witnesses(st Step) []string {
	if len(st.By) > 0 {
		return st.By
	}
	out := make([]string, len(s.People))
	for i, p := range s.People {
		out[i] = p.ID
	}
	return out
}

// Makes says whether a step makes the key.
func (s Script) Makes(key string) bool { return s.makes(key) }

func (s Script) makes(key string) bool {
	return slices.ContainsFunc(s.Steps, func(st Step) bool { return st.Do == DoMakeKey && st.Key == key })
}

func (s Script) has(id string) bool {
	return slices.ContainsFunc(s.People, func(p Person) bool { return p.ID == id })
}

func (s Script) brings(file string) bool {
	return slices.ContainsFunc(s.Files, func(f File) bool { return f.Name == file })
}

// name says whether s may name a person or a key: it becomes part of a file's name.
func name(s string) bool {
	return s != "" && len(s) <= 48 && !strings.HasPrefix(s, ".") && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._@-") == ""
}

// fileName says whether s names a file beside the script, and no other place.
func fileName(s string) bool {
	return s != "" && len(s) <= 96 && !strings.HasPrefix(s, ".") && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._@-") == ""
}

func line(s string, most int) bool {
	return s != "" && len(s) <= most && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

func hexOf(s string, n int) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == n
}
