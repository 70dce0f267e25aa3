// Package rite carries out a key ceremony on one machine: step by step as its script says, before the people it names, with their keys.
//
// Stage 2, birth: it runs on a machine without a network and knows no server. What pki/ceremony says is signed, is signed here; each step
// is shown before it is done, confirmed by all who must see it, and on disk with its digests before the next begins, so that a ceremony
// that was interrupted goes on where it was. A rehearsal is the same code with keys of its own: whatever it makes is under a maker's name
// and types of signatures that nothing real believes.
package rite

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/ceremony"
	"github.com/hallmark-iot/hallmark/pki/profile"
	"github.com/hallmark-iot/hallmark/suite"
	"github.com/hallmark-iot/hallmark/wire"
)

// Desk is where the people sit: what they are shown, and what they say.
type Desk interface {
	// Say shows lines to all.
	Say(lines ...string)
	// Confirm asks person whether what was shown last is right; any error ends the ceremony, which can go on later.
	Confirm(ctx context.Context, person, what string) error
	// Passphrase asks person for that of a key, or of a share; a new one is asked twice. Empty: person is not here.
	Passphrase(ctx context.Context, person, what string, isNew bool) (string, error)
	// PIN asks person for that of a token. Empty: person is not here.
	PIN(ctx context.Context, person, token string) (string, error)
	// Share asks holder for the text of a share that is not on this machine. Empty: holder is not here.
	Share(ctx context.Context, holder, key string) (string, error)
	// Type asks for a line of text.
	Type(ctx context.Context, what string) (string, error)
}

// Token is an open token of a PKCS#11 module; keys/pkcs11 gives them.
type Token interface {
	// Signer finds a key; pkcs11.ErrNoKey when there is none of that name.
	Signer(name string) (crypto.Signer, error)
	// Generate makes a key in the token, which refuses a name that is taken, and suites that it has no keys of.
	Generate(name string, id suite.ID) (crypto.Signer, error)
	// Destroy is for good; pkcs11.ErrNoKey when there is none of that name.
	Destroy(ctx context.Context, name string) error
	// About names the token for the record: maker, model, serial number.
	About() string
}

// Options of a run.
type Options struct {
	Script     []byte
	Beside     string   // directory of the files that the script names
	Dir        string   // directory of the ceremony; made when it is not there
	From       []string // directories of earlier ceremonies, or of offline keys, where keys are that are there already
	Rehearsal  bool
	Program    [32]byte // SHA-256 of the program
	Iterations int      // of PBKDF2

	// Token opens a token; Run asks for each once, and whoever gave it closes it afterwards.
	Token func(t ceremony.Token, pin string) (Token, error)
	Now   func() time.Time
}

// Done is what a ceremony has come to.
type Done struct {
	Transcript wire.Transcript
	Out        []wire.Named // files in the directory out, as they are now
	Answer     string       // the file to bring back to the instance; empty: it asked for nothing
}

// run is a ceremony under way.
type run struct {
	o      Options
	s      ceremony.Script
	desk   Desk
	oem    string
	steps  []wire.Step
	signer map[string]crypto.Signer // keys that are open, by name
	tokens map[ceremony.Token]Token // that are open
	root   *x509.Certificate
}

// File and directory names.
const (
	fileScript     = "script.yaml"
	fileState      = "ceremony.json"
	fileTranscript = "transcript.cose"
	dirJournal     = "journal"
	dirKeys        = "keys"
	dirShares      = "shares"
	dirOut         = "out"
)

// state is what must not change between two sittings of one ceremony.
type state struct {
	Program   string `json:"program"` // SHA-256, hex
	Rehearsal bool   `json:"rehearsal"`
}

// Run holds a ceremony, from where it was left.
func Run(ctx context.Context, o Options, desk Desk) (Done, error) {
	s, err := ceremony.DecodeScript(o.Script)
	if err != nil {
		return Done{}, err
	}
	r := &run{o: o, s: s, desk: desk, oem: s.OEM, signer: map[string]crypto.Signer{}, tokens: map[ceremony.Token]Token{}}
	if o.Rehearsal {
		r.oem = wire.RehearsalOEM(s.OEM)
	}
	if err := r.begin(); err != nil {
		return Done{}, err
	}
	if err := r.checkFiles(); err != nil {
		return Done{}, err
	}
	if err := r.standIns(ctx); err != nil {
		return Done{}, err
	}
	r.opening()
	for i := len(r.steps); i < len(s.Steps); i++ {
		if err := r.carryOut(ctx, i); err != nil {
			return Done{}, fmt.Errorf("step %d (%s): %w", i+1, s.Steps[i].Do, err)
		}
	}
	return r.finish(ctx)
}

// begin makes the directory, or finds what was done in it.
func (r *run) begin() error {
	for _, d := range []string{dirJournal, dirKeys, dirShares, dirOut} {
		if err := durable.MkdirAll(filepath.Join(r.o.Dir, d), 0o700); err != nil {
			return err
		}
	}
	want := state{Program: hex.EncodeToString(r.o.Program[:]), Rehearsal: r.o.Rehearsal}
	data, err := os.ReadFile(r.path(fileState))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if data, err = json.Marshal(want); err != nil {
			return err
		}
		return errors.Join(durable.WriteFile(r.path(fileScript), r.o.Script, 0o600), durable.WriteFile(r.path(fileState), append(data, '\n'), 0o600))
	case err != nil:
		return err
	}
	var had state
	if err := json.Unmarshal(data, &had); err != nil {
		return fmt.Errorf("%s is damaged: %w; begin in a new directory", r.path(fileState), err)
	}
	script, err := os.ReadFile(r.path(fileScript))
	switch {
	case err != nil:
		return err
	case !bytes.Equal(script, r.o.Script):
		return fmt.Errorf("%s was begun with another script: go on with %s, or choose another directory", r.o.Dir, r.path(fileScript))
	case had.Rehearsal != want.Rehearsal:
		return fmt.Errorf("%s holds a rehearsal, or the real thing, and this is the other: choose another directory", r.o.Dir)
	case had.Program != want.Program:
		return fmt.Errorf("%s was begun with another program (%s): go on with that one", r.o.Dir, had.Program)
	}
	return r.journal()
}

// head is the transcript without its steps.
func (r *run) head() wire.Transcript {
	script := ceremony.Digest(r.o.Script)
	return wire.Transcript{
		Version: 1, Ceremony: r.s.Ceremony, OEM: r.oem, Rehearsal: r.o.Rehearsal, Script: script[:], Program: slices.Clone(r.o.Program[:]),
	}
}

func (r *run) last() [32]byte {
	if len(r.steps) == 0 {
		return r.head().Head()
	}
	return r.steps[len(r.steps)-1].Digest()
}

// journal reads the steps that were carried out. They are a chain, and what they made is as they left it.
func (r *run) journal() error {
	for i := range r.s.Steps {
		data, err := os.ReadFile(r.journalPath(i))
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return err
		}
		st, err := wire.DecodeStep(data)
		if prev := r.last(); err != nil || !bytes.Equal(st.Prev, prev[:]) || st.Do != r.s.Steps[i].Do {
			return fmt.Errorf("%s does not follow the step before it (%w): somebody has changed it; begin in a new directory", r.journalPath(i), err)
		}
		r.steps = append(r.steps, st)
	}
	for _, f := range r.made() {
		data, err := os.ReadFile(r.out(f.Name))
		if err != nil {
			return err
		}
		if sum := sha256.Sum256(data); !bytes.Equal(sum[:], f.SHA256) && !r.unfinished(f.Name) {
			return fmt.Errorf("%s is not what the ceremony made: somebody has changed it; begin in a new directory", r.out(f.Name))
		}
	}
	return r.findRoot()
}

// unfinished says whether the next step writes the file again: it may have, before it was interrupted.
func (r *run) unfinished(name string) bool {
	return len(r.steps) < len(r.s.Steps) && r.s.Steps[len(r.steps)].Do == ceremony.DoBundle && name == bundleName(r.s.Steps[len(r.steps)].File)
}

// made are the files so far, each as it was left last.
func (r *run) made() []wire.Named {
	var out []wire.Named
	for _, st := range r.steps {
		for _, f := range st.Out {
			out = slices.DeleteFunc(out, func(o wire.Named) bool { return o.Name == f.Name })
			out = append(out, f)
		}
	}
	return out
}

func (r *run) path(name string) string { return filepath.Join(r.o.Dir, name) }
func (r *run) out(name string) string  { return filepath.Join(r.o.Dir, dirOut, name) }
func (r *run) journalPath(i int) string {
	return filepath.Join(r.o.Dir, dirJournal, fmt.Sprintf("%02d.step", i+1))
}

func (r *run) sharePath(k, who string) string {
	return filepath.Join(r.o.Dir, dirShares, k+"-"+who+".share")
}

// checkFiles compares what was brought with what the script expects.
func (r *run) checkFiles() error {
	for _, f := range r.s.Files {
		data, err := os.ReadFile(filepath.Join(r.o.Beside, f.Name))
		if err != nil {
			return fmt.Errorf("the script wants a file: %w", err)
		}
		if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != f.SHA256 {
			return fmt.Errorf("%s is not the file that the script was written for: its SHA-256 is %x, and %s is wanted", f.Name, sum, f.SHA256)
		}
	}
	return nil
}

// file reads what was brought, or made by a step before.
func (r *run) file(name string) ([]byte, error) {
	for _, f := range r.s.Files {
		if f.Name == name {
			data, err := os.ReadFile(filepath.Join(r.o.Beside, name))
			if sum := sha256.Sum256(data); err == nil && hex.EncodeToString(sum[:]) != f.SHA256 {
				err = fmt.Errorf("%s was changed meanwhile", name)
			}
			return data, err
		}
	}
	return os.ReadFile(r.out(name))
}

func (r *run) opening() {
	if r.o.Rehearsal {
		r.desk.Say("REHEARSAL. Every key is thrown away, and nothing that is made here is believed by anything real.")
	}
	lines := []string{
		"Ceremony  " + r.s.Ceremony + ": " + r.s.Purpose,
		"Script    " + ceremony.Fingerprint(ceremony.Digest(r.o.Script)),
		"Program   " + ceremony.Fingerprint(r.o.Program),
	}
	if n := len(r.steps); n > 0 {
		lines = append(lines, fmt.Sprintf("Goes on after step %d of %d.", n, len(r.s.Steps)))
	}
	r.desk.Say(lines...)
}

// carryOut shows a step, has it confirmed, does it, and writes it down.
func (r *run) carryOut(ctx context.Context, i int) error {
	st := r.s.Steps[i]
	about, in, err := r.preview(st)
	if err != nil {
		return err
	}
	head := fmt.Sprintf("Step %d of %d: %s", i+1, len(r.s.Steps), st.Do)
	if r.o.Rehearsal {
		head = "REHEARSAL " + head
	}
	r.desk.Say(append([]string{"", head}, about...)...)
	by := r.s.Witnesses(st)
	for _, who := range by {
		if err := r.desk.Confirm(ctx, who, st.Do); err != nil {
			return err
		}
	}
	prev := r.last()
	done := wire.Step{Prev: slices.Clone(prev[:]), Do: st.Do, Key: st.Key, By: by, In: in}
	if err := r.do(ctx, st, &done); err != nil {
		return err
	}
	done.At = uint64(r.o.Now().Unix())
	if n := len(r.steps); n > 0 {
		done.At = max(done.At, r.steps[n-1].At) // a clock that was set back must not spoil what was done
	}
	data, err := wire.EncodeStep(done)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(r.journalPath(i), data, 0o600); err != nil {
		return err
	}
	r.steps = append(r.steps, done)
	for _, f := range done.Out {
		r.desk.Say(fmt.Sprintf("  made %-28s %s", f.Name, ceremony.Fingerprint([32]byte(f.SHA256))))
	}
	if done.Note != "" {
		r.desk.Say("  " + done.Note)
	}
	return nil
}

// write puts a file into out, and into the step's record.
func (r *run) write(done *wire.Step, name string, data []byte) error {
	if err := durable.WriteFile(r.out(name), data, 0o644); err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	done.Out = append(done.Out, wire.Named{Name: name, SHA256: sum[:]})
	return nil
}

// findRoot loads the root's certificate, when there is one yet.
func (r *run) findRoot() error {
	name := r.s.Root
	for _, st := range r.steps {
		if st.Do == ceremony.DoRoot {
			name = rootName(st.Key)
		}
	}
	if name == "" {
		return nil
	}
	data, err := r.file(name)
	if r.o.Rehearsal && name == r.s.Root {
		if data, err = os.ReadFile(r.out(name)); errors.Is(err, fs.ErrNotExist) {
			return nil // standIns makes it
		}
	}
	if err != nil {
		return err
	}
	if r.root, err = x509.ParseCertificate(data); err != nil {
		return fmt.Errorf("%s is no certificate: %w", name, err)
	}
	return nil
}

func (r *run) authority(ctx context.Context, key string) (*pki.Authority, error) {
	if r.root == nil {
		if err := r.findRoot(); err != nil {
			return nil, err
		}
	}
	if r.root == nil {
		return nil, errors.New("there is no root's certificate")
	}
	k, err := r.open(ctx, key)
	if err != nil {
		return nil, err
	}
	return pki.NewAuthority(profile.Root, r.root, k)
}
