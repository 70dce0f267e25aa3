package cli

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/internal/keys/pkcs11"
	"github.com/hallmark-iot/hallmark/internal/keys/soft"
	"github.com/hallmark-iot/hallmark/internal/rite"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/ceremony"
	"github.com/hallmark-iot/hallmark/wire"
)

func newCeremony(s streams) *cobra.Command {
	submit, list := &api{s: s}, &api{s: s}
	cmd := &cobra.Command{Use: "ceremony", Short: "Make and use the offline keys, by a script, before witnesses"}
	cmd.AddCommand(planCeremony(s), rehearseCeremony(s), runCeremony(s), verifyCeremony(s), answerCeremony(s), submit.submitCeremony(), list.listCeremonies())
	return cmd
}

// planCall is what a script was asked for.
type planCall struct {
	name, oem, purpose, root, out string
	cast                          ceremony.Cast
	people, pins, tokens          []string
	rootToken                     string
	add, remove                   []string
}

func planCeremony(s streams) *cobra.Command {
	var c planCall
	cmd := &cobra.Command{
		Use:   "plan KIND [FILE…]",
		Short: "Write the script of a ceremony, to be read and changed by those who take part",
		Long: `Writes the script of a ceremony: who takes part, which keys, which files by their digests, and the steps in their order. It is YAML, to be
read, changed and agreed on before anything is done. KIND is one of

  first REQUEST           an instance's first: all keys, the root, its CAs, the first trust bundle (` + "`hallmark init --prepare`" + ` writes REQUEST)
  request REQUEST --root  what an instance asks for later: a product (` + "`hallmark product request`" + `), or a CA
  approver BUNDLE         approvers come (--add) or go (--remove): the next trust bundle, signed by enough of both
  list REQUEST --root     the list of revoked CAs (` + "`hallmark ca list-request`" + ` writes REQUEST)
  root [REQUEST…]         another root, and CAs under it

Custodians hold the root together: any --need of them have it. Each holds an approver's key besides, which signs the transcript too.
The administrator and witnesses have keys for just that. Those who have none yet, after the first ceremony, are named by --new.
Keys are in files under passphrases, or, with --token and --root-token, in PKCS#11 tokens, which they never leave.`,
		Example: `  hallmark ceremony plan first request.ceremony --name acme-2027 --administrator adam --custodians alice,bob,carol --witnesses walt --need 2 --out first.yaml`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			script, err := c.plan(args[0], args[1:])
			if err != nil {
				return err
			}
			data, err := ceremony.EncodeScript(script)
			if err != nil {
				return usageError{err}
			}
			if err := durable.WriteFile(c.out, data, 0o644); err != nil {
				return err
			}
			return sheet(s.out, "ceremony", script.Ceremony, "people", fmt.Sprint(len(script.People)), "keys", fmt.Sprint(len(script.Keys)), "steps", fmt.Sprint(len(script.Steps)),
				"fingerprint", ceremony.Fingerprint(ceremony.Digest(data)), "written", c.out)
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.name, "name", "", "name of the ceremony, such as acme-2027")
	f.StringVar(&c.cast.Administrator, "administrator", "", "who leads through the script")
	f.StringSliceVar(&c.cast.Custodians, "custodians", nil, "who holds keys")
	f.StringSliceVar(&c.cast.Witnesses, "witnesses", nil, "who watches")
	f.IntVar(&c.cast.Need, "need", 2, "how many custodians have the root together")
	f.StringVar(&c.cast.Root, "root-name", "", "name of the root's key (default oem-root; of a further root oem-root-NAME)")
	f.StringSliceVar(&c.cast.Fresh, "new", nil, "who has no key of an earlier ceremony yet")
	f.StringArrayVar(&c.people, "person", nil, "whole name of somebody, ID=NAME: kept privately, beside the ledger")
	f.StringArrayVar(&c.pins, "pin", nil, "the key that must be used, NAME=KEY-ID")
	f.StringArrayVar(&c.tokens, "token", nil, "PKCS#11 token that has somebody's own key, ID=pkcs11:token=LABEL?module-path=LIBRARY")
	f.StringVar(&c.rootToken, "root-token", "", "PKCS#11 token that has the root, HOLDER=pkcs11:…, in the place of shares")
	f.StringVar(&c.root, "root", "", "certificate of the OEM root, DER, of a request")
	f.StringVar(&c.oem, "oem", "", "the maker, where no request says it")
	f.StringVar(&c.purpose, "purpose", "", "why it is held, where no request says it")
	f.StringSliceVar(&c.add, "add", nil, "custodians who become approvers")
	f.StringSliceVar(&c.remove, "remove", nil, "key IDs of approvers who go")
	f.StringVar(&c.out, "out", "", "file to write; the files that it names must lie beside it")
	return need(cmd, "name", "administrator", "custodians", "out")
}

// brought reads a file that a ceremony is about. It must lie beside the script.
func (c *planCall) brought(path string) (ceremony.Brought, error) {
	data, err := readFile(path, wire.MaxCeremonyRequest)
	if err != nil {
		return ceremony.Brought{}, err
	}
	if same, err := filepath.Abs(filepath.Dir(c.out)); err != nil || same != dirOf(path) {
		return ceremony.Brought{}, usagef("%s must lie beside the script, in %s: copy it there first", path, same)
	}
	return ceremony.Brought{Name: filepath.Base(path), Data: data}, nil
}

func dirOf(path string) string {
	abs, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return ""
	}
	return abs
}

func (c *planCall) plan(kind string, paths []string) (s ceremony.Script, err error) {
	if c.cast.Names, err = pairs("--person", c.people); err != nil {
		return s, err
	}
	pins, err := pairs("--pin", c.pins)
	if err != nil {
		return s, err
	}
	if err := c.inTokens(); err != nil {
		return s, err
	}
	var files []ceremony.Brought
	for _, p := range paths {
		f, err := c.brought(p)
		if err != nil {
			return s, err
		}
		files = append(files, f)
	}
	if kind != "root" && len(files) != 1 {
		return s, usagef("plan %s: want one file", kind)
	}
	switch kind {
	case "first":
		s, err = ceremony.PlanFirst(c.name, files[0], c.cast)
	case "request":
		root, rootErr := c.brought(c.root)
		if rootErr != nil {
			return s, usagef("--root: %w", rootErr)
		}
		s, err = ceremony.PlanRequest(c.name, files[0], root, c.cast)
	case "list":
		root, rootErr := c.brought(c.root)
		if rootErr != nil {
			return s, usagef("--root: %w", rootErr)
		}
		s, err = ceremony.PlanList(c.name, c.oem, files[0], root, c.cast)
	case "approver":
		s, err = ceremony.PlanApprover(c.name, c.oem, c.purpose, files[0], c.cast, c.add, c.remove)
	case "root":
		s, err = ceremony.PlanRoot(c.name, c.oem, c.purpose, files, c.cast)
	default:
		return s, usagef("plan %s: want first, request, list, approver or root", kind)
	}
	if err != nil {
		return s, usageError{err}
	}
	if err := c.allUsed(s); err != nil {
		return s, err
	}
	for name, id := range pins {
		i := slices.IndexFunc(s.Keys, func(k ceremony.Key) bool { return k.Name == name })
		if i < 0 {
			return s, usagef("--pin %s: no such key in the script", name)
		}
		s.Keys[i].ID = id
	}
	return s, nil
}

// inTokens says which keys are in tokens.
func (c *planCall) inTokens() error {
	named, err := pairs("--token", c.tokens)
	if err != nil {
		return err
	}
	c.cast.Tokens = map[string]ceremony.Token{}
	for who, uri := range named {
		if c.cast.Tokens[who], err = tokenOf("--token", uri); err != nil {
			return err
		}
	}
	if c.rootToken == "" {
		return nil
	}
	who, uri, _ := strings.Cut(c.rootToken, "=")
	t, err := tokenOf("--root-token", uri)
	c.cast.RootHolder, c.cast.RootToken = who, &t
	return err
}

// allUsed checks that each token that was named has a key in the script: a key that people believe in a token would else be made in a file.
func (c *planCall) allUsed(s ceremony.Script) error {
	holds := func(who string, t ceremony.Token) bool {
		return slices.ContainsFunc(s.Keys, func(k ceremony.Key) bool { return k.PKCS11 != nil && *k.PKCS11 == t && k.Holders[0] == who })
	}
	for who, t := range c.cast.Tokens {
		if !holds(who, t) {
			return usagef("--token %s: nobody of that ID has a key in this script", who)
		}
	}
	if t := c.cast.RootToken; t != nil && !holds(c.cast.RootHolder, *t) {
		return usagef("--root-token: this script uses no root")
	}
	return nil
}

// tokenOf reads a token's URI. The PIN is its holder's to type: a script is read by all.
func tokenOf(flag, uri string) (ceremony.Token, error) {
	u, err := pkcs11.ParseURI(uri)
	if err != nil {
		return ceremony.Token{}, usagef("%s: %w", flag, err)
	}
	if u.Object != "" || u.PIN != "" {
		return ceremony.Token{}, usagef("%s %s: name the token and its module alone; the script names keys, and people type PINs", flag, uri)
	}
	return ceremony.Token{Module: u.Module, Token: u.Token}, nil
}

// pairs reads NAME=VALUE.
func pairs(flag string, list []string) (map[string]string, error) {
	out := map[string]string{}
	for _, p := range list {
		k, v, ok := strings.Cut(p, "=")
		if !ok || k == "" || v == "" {
			return nil, usagef("%s %q: want NAME=VALUE", flag, p)
		}
		out[k] = v
	}
	return out, nil
}

// sitting is one run of a script.
type sitting struct {
	dir, passphrases string
	from             []string
	iterations       int
	unattended       bool
}

func (c *sitting) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&c.dir, "dir", "", "directory of the ceremony: journal, keys, shares, and what it makes in out/")
	f.StringVar(&c.passphrases, "passphrases", "", "directory with each person's passphrase in a file of the person's ID, and the PIN of the person's token in ID.pin (else asked on the terminal)")
	f.IntVar(&c.iterations, "kdf-iterations", soft.Iterations, "PBKDF2 iterations for passphrases")
	_ = f.MarkHidden("kdf-iterations") // it exists
	need(cmd, "dir")
}

func rehearseCeremony(s streams) *cobra.Command {
	var c sitting
	cmd := &cobra.Command{
		Use:   "rehearse SCRIPT --dir DIR",
		Short: "Hold a ceremony with throw-away keys, by the same code",
		Long: `Holds the ceremony of SCRIPT with keys of its own for all that it uses: no real key is opened. What it makes is under a maker's name and
types of signatures of its own, and nothing real accepts it: neither an instance, nor a device, nor ` + "`hallmark ceremony submit`" + `.
With --unattended nobody is asked anything.`,
		Example: "  hallmark ceremony rehearse first.yaml --dir rehearsal --unattended",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.hold(cmd.Context(), s, args[0], true)
		},
	}
	c.flags(cmd)
	cmd.Flags().BoolVar(&c.unattended, "unattended", false, "ask nobody")
	return cmd
}

func runCeremony(s streams) *cobra.Command {
	var c sitting
	cmd := &cobra.Command{
		Use:   "run SCRIPT --dir DIR",
		Short: "Hold a ceremony: on a machine without a network",
		Long: `Holds the ceremony of SCRIPT, step by step. Each step is shown with the fingerprints of what goes into it, confirmed by all who must see it
(they type yes), and on disk before the next begins: a ceremony that was interrupted goes on with the same command.
Keys that are there already are looked for in DIR and in what --from names: the directory of an earlier ceremony, or one of offline keys.
At the end everybody with a key signs the transcript. Take DIR/out to the instance; give shares and keys to their holders, and leave
nothing on the machine.`,
		Example: "  hallmark ceremony run first.yaml --dir held",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.hold(cmd.Context(), s, args[0], false)
		},
	}
	c.flags(cmd)
	cmd.Flags().StringArrayVar(&c.from, "from", nil, "directory of an earlier ceremony, or of offline keys")
	return cmd
}

// hold runs a script at this machine's keyboard.
func (c *sitting) hold(ctx context.Context, s streams, path string, rehearsal bool) error {
	script, err := readFile(path, 64<<10)
	if err != nil {
		return err
	}
	program, err := programDigest()
	if err != nil {
		return err
	}
	var d rite.Desk = newDesk(s, c.passphrases)
	if c.unattended {
		d = nobody{s.out}
	}
	var tokens modules
	done, err := rite.Run(ctx, rite.Options{
		Script: script, Beside: filepath.Dir(path), Dir: c.dir, From: c.from, Rehearsal: rehearsal, Program: program, Iterations: c.iterations, Token: tokens.forRite, Now: time.Now,
	}, d)
	if err = errors.Join(err, tokens.Close()); err != nil {
		return err
	}
	what := "held"
	if rehearsal {
		what = "rehearsed; throw it away"
	}
	fmt.Fprintln(s.out)
	return sheet(s.out, "ceremony", done.Transcript.Ceremony+" "+what, "transcript", filepath.Join(c.dir, "out", "transcript.cose"), "answer", done.Answer,
		"files", fleet.Count(len(done.Out), "file", "files")+" in "+filepath.Join(c.dir, "out"))
}

// programDigest names the program that runs: SHA-256 of its file.
func programDigest() (out [32]byte, err error) {
	path, err := os.Executable()
	if err != nil {
		return out, fmt.Errorf("which program this is: %w", err)
	}
	f, err := os.Open(path)
	if err != nil {
		return out, fmt.Errorf("which program this is: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return out, fmt.Errorf("which program this is: %w", err)
	}
	return [32]byte(h.Sum(nil)), nil
}

func verifyCeremony(s streams) *cobra.Command {
	var script, files string
	cmd := &cobra.Command{
		Use:   "verify TRANSCRIPT",
		Short: "Check the transcript of a ceremony, against its script and what was made",
		Long: `Checks that the steps of a transcript are one chain and that everybody who had a key signed it; with --script, that it was held by just that
script; with --files, that what was made is what is there. Whose keys they are it cannot know: compare them with those you know.`,
		Example: "  hallmark ceremony verify held/out/transcript.cose --script first.yaml --files held/out",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			envelope, err := readFile(args[0], wire.MaxEnvelope)
			if err != nil {
				return err
			}
			t, err := wire.OpenTranscript(envelope)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if script != "" {
				data, err := readFile(script, 64<<10)
				if err != nil {
					return err
				}
				if err := ceremony.Follows(t, data); err != nil {
					return fmt.Errorf("%s does not follow %s: %w", args[0], script, err)
				}
			}
			if files != "" {
				if err := asMade(t, files); err != nil {
					return err
				}
			}
			return transcriptSheet(s.out, t)
		},
	}
	cmd.Flags().StringVar(&script, "script", "", "the script that it was held by")
	cmd.Flags().StringVar(&files, "files", "", "directory with what was made")
	return cmd
}

// asMade compares the files of a directory with what a transcript says was made.
func asMade(t wire.Transcript, dir string) error {
	last := map[string][]byte{}
	for _, st := range t.Steps {
		for _, f := range st.Out {
			last[f.Name] = f.SHA256
		}
	}
	for name, want := range last {
		data, err := os.ReadFile(filepath.Join(dir, filepath.Base(name)))
		if err != nil {
			return err
		}
		if sum := sha256.Sum256(data); [32]byte(want) != sum {
			return fmt.Errorf("%s in %s is not what was made at the ceremony", name, dir)
		}
	}
	return nil
}

func transcriptSheet(w io.Writer, t wire.Transcript) error {
	kind := "the real thing"
	if t.Rehearsal {
		kind = "REHEARSAL: nothing of it is real"
	}
	if err := sheet(w, "ceremony", t.Ceremony, "of", t.OEM, "kind", kind, "steps", fmt.Sprint(len(t.Steps)), "script", ceremony.Fingerprint([32]byte(t.Script)),
		"program", ceremony.Fingerprint([32]byte(t.Program))); err != nil {
		return err
	}
	for _, p := range t.People {
		sign := "no key"
		if len(p.SPKI) > 0 {
			sign = "signed with " + ceremony.KeyID(p.SPKI)
		}
		fmt.Fprintf(w, "  %-16s %-14s %s\n", p.Label, p.Part, sign)
	}
	for i, st := range t.Steps {
		fmt.Fprintf(w, "  %2d %s  %-16s %-20s %s\n", i+1, unix(st.At), st.Do, st.Key, strings.Join(st.By, ","))
	}
	return nil
}

// quickCall answers a request with keys at hand.
type quickCall struct {
	rootKey, root, out string
	keys               []string
	pass               secret
}

func answerCeremony(s streams) *cobra.Command {
	var c quickCall
	cmd := &cobra.Command{
		Use:   "answer REQUEST --root-key KEYFILE --root FILE --out FILE",
		Short: "Answer an instance's request with offline keys at hand, without a ceremony",
		Long: `Signs what a request asks for with offline keys that are all here: a CA (` + "`hallmark ca request`" + `), the list of revoked ones
(` + "`hallmark ca list-request`" + `), or what a product needs (` + "`hallmark product request`" + `), for which enough approvers sign too. Good for a start, as ` + "`hallmark init`" + ` is; nobody sees what one person does. See ` + "`hallmark ceremony run`" + ` for the other way.`,
		Example: `  hallmark ceremony answer valve.ceremony --root-key offline/oem-root.key --root certs/oem-root.der --key offline/approver-alice.key --key offline/approver-bob.key --out valve.answer`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.run(cmd.Context(), s, args[0])
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.rootKey, "root-key", "", "file of the root's key, such as offline/oem-root.key")
	f.StringVar(&c.root, "root", "", "the root's certificate, DER, such as DIR/certs/oem-root.der")
	f.StringArrayVar(&c.keys, "key", nil, "file of an approver's key, such as offline/approver-alice.key; as many as must sign")
	f.StringVar(&c.out, "out", "", "file to write")
	c.pass.flag(cmd)
	return need(cmd, "root-key", "root", "out")
}

func (c quickCall) run(ctx context.Context, s streams, path string) error {
	request, err := readFile(path, wire.MaxCeremonyRequest)
	if err != nil {
		return err
	}
	root, err := c.authority(ctx, s)
	if err != nil {
		return err
	}
	if r, err := wire.DecodeCRLRequest(request); err == nil {
		return c.list(s, root, r)
	}
	if asked, err := ceremony.OpenRequests(request); err == nil && len(asked) == 1 {
		if _, err := wire.DecodeCeremonyRequest(request); err != nil { // a request for one CA, and nothing else
			return c.grant(s, root, asked[0])
		}
	}
	var people []ceremony.Approver
	for _, k := range c.keys {
		signer, err := keyFile{k, c.pass}.open(ctx, s)
		if err != nil {
			return err
		}
		people = append(people, ceremony.Approver{Label: strings.TrimSuffix(strings.TrimPrefix(filepath.Base(k), "approver-"), ".key"), Key: signer})
	}
	a, err := ceremony.Answer(request, root, people, time.Now())
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if _, err := ceremony.Check(request, a); err != nil {
		return err
	}
	data, err := wire.EncodeCeremonyAnswer(a)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(c.out, data, 0o644); err != nil {
		return err
	}
	return sheet(s.out, "request", ceremony.Fingerprint([32]byte(a.Request)), "CAs", fmt.Sprint(len(a.Grants)), "written", c.out)
}

// grant signs one CA.
func (c quickCall) grant(s streams, root *pki.Authority, a ceremony.Asked) error {
	data, err := ceremony.Grant(root, a, a.OEM, time.Now())
	if err != nil {
		return err
	}
	if _, err := ceremony.CheckGrant(data, a, root.Cert, a.OEM); err != nil {
		return err
	}
	if err := durable.WriteFile(c.out, data, 0o644); err != nil {
		return err
	}
	return sheet(s.out, "request", ceremony.Fingerprint(a.Digest), "CA", strings.TrimSpace(a.Role+" "+a.Product), "purpose", a.Purpose, "written", c.out)
}

// list signs a list of revoked CAs.
func (c quickCall) list(s streams, root *pki.Authority, r wire.CRLRequest) error {
	der, err := ceremony.SignList(root, r)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(c.out, der, 0o644); err != nil {
		return err
	}
	return sheet(s.out, "list", fmt.Sprint(r.Number), "revoked CAs", fmt.Sprint(len(r.Revoked)), "until", unix(r.Until), "purpose", r.Purpose, "written", c.out)
}

var errNoYes = errors.New("it was not confirmed: the ceremony stops here, and goes on with the same command")
