package cli

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/genuine"
	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/ledger/audit"
	"github.com/hallmark-iot/hallmark/wire"
)

// verification is one call of verify.
type verification struct {
	*api
	root, trust, out, local string
	challenge               bool
	wait                    time.Duration
}

func newVerify(s streams) *cobra.Command {
	v := &verification{api: &api{s: s}}
	c := &cobra.Command{
		Use: "verify DEVICE | FILE", Short: "Is this device genuine? Ask its maker, the device itself, or check an answer that was kept", Args: cobra.ExactArgs(1),
		Long: `Says whether a device is genuine, and what else a buyer should know. No account is needed.

With the ID of a device it asks its maker's server at --url. With --challenge the device itself has to answer, over fresh random bytes, the next
time that it calls: that proves that the piece with this ID is switched on, and what it runs. With --local it asks the device beside you, at an
address of its own, and no server.
With a FILE it checks a verdict that was kept with --out, and asks nobody.

--root is the SHA-256 of the maker's root certificate, as the maker publishes it: by it the signature is checked. Without it nothing is proven, and
the answer says so. --trust has the keys of the maker's logs: with it the places of the facts that the verdict rests on are checked too.

The exit code is 0 when nothing speaks against the device, and 4 when something does, or when it is unknown.`,
		Example: `  hallmark verify 00112233445566778899aabbccddeeff --url https://genuine.acme.example --root 3f1c… --out pump.verdict
  hallmark verify pump.verdict --root 3f1c… --trust trust.json
  hallmark verify 00112233445566778899aabbccddeeff --local 192.168.1.20:8440 --root 3f1c…`,
	}
	c.RunE = func(cmd *cobra.Command, args []string) error { return v.run(cmd.Context(), args[0]) }
	f := c.Flags()
	f.StringVar(&v.url, "url", "", "address of the maker's server (else "+envURL+")")
	f.StringVar(&v.ca, "ca", "", "certificate to trust for https, PEM or DER (default: the system's)")
	f.StringVar(&v.root, "root", "", "SHA-256 of the maker's root certificate, hex; spaces and colons do not matter")
	f.StringVar(&v.trust, "trust", "", "file with the keys of the maker's logs and witnesses")
	f.BoolVar(&v.challenge, "challenge", false, "have the device itself answer")
	f.DurationVar(&v.wait, "wait", 15*time.Minute, "how long to wait for its answer")
	f.StringVar(&v.local, "local", "", "ask the device itself at host:port, or at the path of its socket, and no server")
	f.StringVar(&v.out, "out", "", "keep the signed answer in a file")
	f.BoolVar(&v.asJSON, "json", false, "for other programs")
	c.MarkFlagsMutuallyExclusive("local", "challenge")
	c.MarkFlagsMutuallyExclusive("local", "url")
	return c
}

func isDeviceID(s string) bool {
	return len(s) == 32 && !slices.ContainsFunc([]byte(s), func(c byte) bool { return (c < '0' || c > '9') && (c < 'a' || c > 'f') })
}

func (v *verification) run(ctx context.Context, what string) error {
	root, err := fingerprint(v.root)
	if err != nil {
		return err
	}
	switch {
	case v.local != "":
		if !isDeviceID(what) || root == nil {
			return usagef("--local needs the ID of the device and --root: the device's own word for its maker would prove nothing")
		}
		return v.beside(ctx, what, *root)
	case isDeviceID(what):
		return v.asked(ctx, what, root)
	case root == nil:
		return usagef("with a file, --root must name the root to believe; the file's own would prove nothing")
	}
	signed, err := readFile(what, wire.MaxEnvelope)
	if err != nil {
		return err
	}
	return v.judge(signed, root, nil)
}

// fingerprint reads a SHA-256 as people write it; nil when there is none.
func fingerprint(s string) (*[32]byte, error) {
	if s == "" {
		return nil, nil //nolint:nilnil // none was given
	}
	b, err := hex.DecodeString(strings.ToLower(strings.NewReplacer(" ", "", ":", "", "-", "").Replace(s)))
	if err != nil || len(b) != sha256.Size {
		return nil, usagef("--root %q: want 64 hex digits, the SHA-256 of the maker's root certificate", s)
	}
	return (*[32]byte)(b), nil
}

// asked asks the maker's server, and through it the device.
func (v *verification) asked(ctx context.Context, device string, root *[32]byte) error {
	base := v.address()
	if base == "" {
		return usagef("address %q: give --url, or set %s; it is on the device's label", base, envURL)
	}
	roots, err := v.roots()
	if err != nil {
		return err
	}
	cl := client.New(base, "", &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots})
	nonce := genuine.NewNonce()
	var view client.VerdictView
	if v.challenge {
		view, err = v.answered(ctx, cl, device, nonce)
	} else {
		view, err = cl.Verdict(ctx, device, nonce)
	}
	if err != nil {
		return err
	}
	return v.judge(view.Signed, root, nonce)
}

const askAgain = 2 * time.Second

// answered waits for the device's own answer.
func (v *verification) answered(ctx context.Context, cl *client.Client, device string, nonce []byte) (client.VerdictView, error) {
	q, err := cl.AskDevice(ctx, device, nonce)
	ctx, cancel := context.WithTimeout(ctx, v.wait)
	defer cancel()
	for ; err == nil; q, err = cl.Question(ctx, device, q.ID) {
		switch q.Standing {
		case genuine.Answered:
			return *q.Verdict, nil
		case genuine.NoAnswer:
			return client.VerdictView{}, fmt.Errorf("device %s has not answered: is it switched on and on line?", device)
		case genuine.Waiting:
		}
		select {
		case <-ctx.Done():
			return client.VerdictView{}, fmt.Errorf("device %s has not answered within %s: is it switched on and on line?", device, v.wait)
		case <-time.After(askAgain):
		}
	}
	return client.VerdictView{}, err
}

// verified is what is shown.
type verified struct {
	wire.Genuine
	Title     string   `json:"title"`
	Advice    string   `json:"advice"`
	Root      string   `json:"root"`                // that the signature leads to
	Believed  bool     `json:"believed"`            // it is the one of --root
	Witnessed []string `json:"witnessed,omitempty"` // what --trust showed of the logs
	Answer    *answer  `json:"answer,omitempty"`
	Expired   bool     `json:"expired,omitempty"`
}

// answer is what the device itself has shown.
type answer struct {
	Word     string `json:"word"`
	Version  string `json:"version"`
	Hardware string `json:"hardware"`
	Virtual  bool   `json:"virtual"`
}

// judge checks a signed verdict and shows it. nonce is the one it must carry; nil: whatever it has.
func (v *verification) judge(signed []byte, root *[32]byte, nonce []byte) error {
	own, err := wire.GenuineRoot(signed)
	if err != nil {
		return err
	}
	believed := root != nil
	if !believed {
		root = &own
	}
	g, err := wire.OpenGenuine(signed, *root)
	if err != nil {
		return fmt.Errorf("this is NOT a verdict of that maker: %w", err)
	}
	if nonce != nil && !slices.Equal(g.Nonce, nonce) {
		return fmt.Errorf("the verdict was made for another question")
	}
	w := genuine.Word(g.Headline)
	r := verified{Genuine: g, Title: w.Title(), Advice: w.Advice(), Root: hex.EncodeToString(own[:]), Believed: believed}
	r.Expired = time.Now().Unix() > int64(min(g.Expires, 1<<40))
	if r.Answer, err = answerOf(g); err != nil {
		return fmt.Errorf("the device's answer does NOT hold: %w", err)
	}
	if v.trust != "" {
		if r.Witnessed, err = witnessed(g, v.trust); err != nil {
			return fmt.Errorf("the facts of the verdict are NOT in the maker's logs: %w", err)
		}
	}
	if v.out != "" {
		if err := durable.WriteFile(v.out, signed, 0o644); err != nil {
			return err
		}
	}
	if err := v.print(r); err != nil {
		return err
	}
	return speaks(r)
}

// speaks gives the exit code: what a buyer should not overlook is no success.
func speaks(r verified) error {
	w := genuine.Word(r.Headline)
	switch {
	case w.Tone() != "good":
		return alertError{fmt.Errorf("device %s: %s", r.Device, w.Title())}
	case r.Answer != nil && !wire.Acceptable(r.Answer.Word):
		return alertError{fmt.Errorf("device %s: what it runs is not what its maker approved", r.Device)}
	}
	return nil
}

func answerOf(g wire.Genuine) (*answer, error) {
	if g.Proof == nil {
		return nil, nil //nolint:nilnil // it was not asked
	}
	e, err := g.Proof.Verify(g.Device, g.Nonce)
	if err != nil {
		return nil, err
	}
	a := evidenced(e)
	a.Word = g.Proof.Word
	return a, nil
}

func evidenced(e wire.Evidence) *answer {
	a := &answer{Hardware: e.Hardware, Virtual: e.Virtual}
	for _, c := range e.Components {
		if c.Type == "App" {
			a.Version = c.Version
		}
	}
	return a
}

// witnessed checks that the facts of a verdict are in the logs of a trust file, and says so.
func witnessed(g wire.Genuine, file string) ([]string, error) {
	trust, err := readTrust(file)
	if err != nil {
		return nil, err
	}
	var said []string
	for _, l := range g.Logs {
		i := slices.IndexFunc(trust.Logs, func(t audit.TrustedLog) bool { return t.Name == l.Name })
		if i < 0 {
			return nil, fmt.Errorf("log %q is none of those to believe", l.Name)
		}
		head, err := audit.Checkpoint(trust.Policy(i), []byte(l.Checkpoint))
		if err != nil {
			return nil, err
		}
		root, err := l.Root()
		if err != nil {
			return nil, err
		}
		if head.Size != l.Size || head.Root != root {
			return nil, fmt.Errorf("log %s: the facts are not under its checkpoint: %w", l.Name, wire.ErrInclusion)
		}
		said = append(said, fmt.Sprintf("%s in the %s log, as a quorum had seen it at %s", fleet.Count(len(l.Facts), "fact", "facts"), l.Name, when(head.Seen(trust.Quorum))))
	}
	if len(said) == 0 && g.Headline != string(genuine.Unknown) {
		said = append(said, "no fact of it is in a witnessed log yet")
	}
	return said, nil
}

func (v *verification) print(r verified) error {
	if v.asJSON {
		return printJSON(v.s.out, r)
	}
	return v.sheet(v.s.out, r)
}

func (v *verification) sheet(w io.Writer, r verified) error {
	fmt.Fprintf(w, "%s\n", oneLine(r.Title))
	for _, s := range r.Says {
		if s.Word == r.Headline && s.Text != "" {
			fmt.Fprintf(w, "%s\n", oneLine(s.Text))
		}
	}
	fmt.Fprintf(w, "%s\n\n", r.Advice)
	pairs := []string{"device", r.Device, "maker", oneLine(r.Maker), "product", or(oneLine(r.Product))}
	if r.Made != 0 {
		pairs = append(pairs, "made", dayOf(r.Made)[:7])
	}
	for _, s := range r.Says {
		if since := ""; s.Word != r.Headline || s.Since != 0 {
			if since = "yes"; s.Since != 0 {
				since = dayOf(s.Since)
			}
			if s.Text != "" && s.Word != r.Headline {
				since += ": " + oneLine(s.Text)
			}
			pairs = append(pairs, strings.ReplaceAll(oneLine(s.Word), "-", " "), since)
		}
	}
	pairs = append(pairs, "issued", when(time.Unix(int64(min(r.Issued, 1<<40)), 0)))
	if r.Expired {
		pairs = append(pairs, "expired", "ask again: things may have changed since")
	}
	if r.Believed {
		pairs = append(pairs, "signature", "of the root that you believe")
	} else {
		pairs = append(pairs, "signature", "NOT compared with a root that you believe: give --root. It leads to "+r.Root)
	}
	for _, s := range r.Witnessed {
		pairs = append(pairs, "ledger", s)
	}
	if v.trust == "" && len(r.Logs) > 0 {
		pairs = append(pairs, "ledger", "not checked: give --trust")
	}
	switch {
	case r.Answer != nil:
		pairs = append(pairs, "the device", fmt.Sprintf("answered this question; it runs version %s: %s", or(oneLine(r.Answer.Version)), oneLine(r.Answer.Word)))
	case r.Headline != string(genuine.Unknown):
		pairs = append(pairs, "the device", "was not asked: this is about the ID, and a label can be copied; --challenge asks it")
	}
	return sheet(w, pairs...)
}

func dayOf(seconds uint64) string {
	return time.Unix(int64(min(seconds, 1<<40)), 0).UTC().Format(time.DateOnly)
}

// beside asks the device itself, and shows what it proves.
func (v *verification) beside(ctx context.Context, device string, root [32]byte) error {
	nonce := genuine.NewNonce()
	proof, err := askBeside(ctx, v.local, nonce)
	if err != nil {
		return err
	}
	p, e, err := wire.OpenDeviceProof(proof, root, device, nonce)
	if err != nil {
		return fmt.Errorf("this is NOT device %s of that maker, as far as it can prove: %w", device, err)
	}
	if v.out != "" {
		if err := durable.WriteFile(v.out, proof, 0o644); err != nil {
			return err
		}
	}
	a := evidenced(e)
	if v.asJSON {
		return printJSON(v.s.out, struct {
			Device string `json:"device"`
			Answer any    `json:"answer"`
			Key    []byte `json:"attestation_key"`
		}{device, a, p.Attest})
	}
	fmt.Fprintf(v.s.out, "The piece at %s is the one with this ID\n", oneLine(v.local))
	fmt.Fprint(v.s.out, "It was made under the root that you believe, and holds the key from the factory. Whether it was stolen, recalled or retired since only its maker knows.\n\n")
	return sheet(v.s.out, "device", device, "hardware", or(oneLine(a.Hardware)), "version", or(oneLine(a.Version)), "virtual", yes(a.Virtual), "debug locked", yes(e.DebugLocked))
}
