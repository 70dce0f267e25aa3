package cli

import (
	"context"
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/internal/keys/pkcs11"
	"github.com/hallmark-iot/hallmark/internal/keys/soft"
	"github.com/hallmark-iot/hallmark/wire"
)

// keyFile is an approver's key in an offline key directory.
type keyFile struct {
	path string
	pass secret
}

func (k *keyFile) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&k.path, "key", "", "the approver's key file in the offline key directory, such as offline/approver-alice.key;\nor a key in a token, pkcs11:token=LABEL;object=KEY?module-path=LIBRARY")
	k.pass.flag(cmd)
}

func (k keyFile) open(ctx context.Context, s streams) (crypto.Signer, error) {
	if strings.HasPrefix(k.path, pkcs11.Scheme) {
		return tokenKey(ctx, s, k.path)
	}
	dir, name := filepath.Split(k.path)
	name, isKey := strings.CutSuffix(name, ".key")
	if _, err := os.Stat(k.path); err != nil || !isKey {
		return nil, usagef("--key %q: want a file that is there and ends in .key, such as offline/approver-alice.key", k.path)
	}
	pass, err := k.pass.read(ctx, s, "the offline keys", false)
	if err != nil {
		return nil, err
	}
	store, err := soft.Open(filepath.Clean(dir), pass)
	if err != nil {
		return nil, err
	}
	return store.Signer(name)
}

// approvable is a kind of payload that approvers sign.
type approvable struct {
	name  string // as a person calls it
	typ   wire.Type
	about func(payload []byte) (string, error)
}

func approvables() []approvable {
	return []approvable{
		{"release", wire.TypeRelease, aboutRelease}, {"warrant", wire.TypeWarrant, aboutWarrant}, {"bundle", wire.TypeBundle, aboutBundle},
	}
}

func aboutRelease(payload []byte) (string, error) {
	r, err := wire.DecodeRelease(payload)
	var may strings.Builder
	for _, c := range r.Components { // what is approved is that a program may reach it
		if c.Capabilities != nil {
			fmt.Fprintf(&may, "; %s may: %s", c.Name, c.Capabilities)
		}
	}
	if order := r.Order(); order != "" {
		may.WriteString("; programs start: " + order)
	}
	may.WriteString(waysOf(r))
	for _, p := range r.Parameters {
		fmt.Fprintf(&may, "; parameter %s: %s", p.Name, p)
	}
	return fmt.Sprintf("release %s of product %s, version %s, security counter %d, %s%s",
		r.ID, r.Product, r.Version, r.Counter, fleet.Count(len(r.Components), "component", "components"), may.String()), err
}

func aboutWarrant(payload []byte) (string, error) {
	w, err := wire.DecodeWarrant(payload)
	to := ""
	if w.Home != nil {
		to = fmt.Sprintf(" to %s, where trust bundle %x is in force, for good,", w.Home.Server, w.Home.Bundle)
	}
	return fmt.Sprintf("warrant %s to %s %s of product %s%s until %s: %s",
		w.ID, w.Act, fleet.Count(w.Devices.Count, "device", "devices"), w.Product, to, unix(w.Expires), w.Reason), err
}

func aboutBundle(payload []byte) (string, error) {
	b, err := wire.DecodeBundle(payload)
	return fmt.Sprintf("trust bundle %d of product %s, %d of %d root keys", b.Version, b.Product, b.Root.Threshold, len(b.Root.Keys)), err
}

func newApprove(s streams) *cobra.Command {
	var k keyFile
	var kind, out, against string
	var asSUIT bool
	cmd := &cobra.Command{
		Use:   "approve FILE --key KEYFILE",
		Short: "Sign a release, a warrant or a trust bundle offline",
		Long: `Signs a payload with an approver's key, on a machine that needs no network. FILE is a payload, such as
` + "`hallmark release payload`" + ` or ` + "`hallmark warrant payload`" + ` writes it, or an envelope that others have signed already.
What it is about is read from FILE itself and printed: compare it with what you mean to approve.

A release takes one approver's signature at a time: give the envelope to ` + "`hallmark release approve --envelope FILE`" + `.
A warrant or trust bundle goes from hand to hand: each approver signs what the one before has written. What a trust bundle changes is
printed in words when --against names the signed bundle in force, as ` + "`hallmark bundle show --out`" + ` writes it.

With --suit it is the release's SUIT manifest that is signed, which follows from the payload: give what is written to ` + "`hallmark release sign-suit --block FILE`" + `, beside the approval.`,
		Example: `  hallmark approve pump-1.1.0.payload --key offline/approver-alice.key --out alice.cose`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := readFile(args[0], wire.MaxEnvelope)
			if err != nil {
				return err
			}
			typ, payload, about, err := recognise(kind, data)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if err := showChanges(s, typ, payload, against); err != nil {
				return err
			}
			signer, err := k.open(cmd.Context(), s)
			if err != nil {
				return err
			}
			if asSUIT {
				return approveSUIT(s, typ, payload, signer, about, out)
			}
			envelope, err := sign(typ, payload, data, signer)
			if err != nil {
				return err
			}
			if out == "" {
				out = strings.TrimSuffix(strings.TrimSuffix(args[0], ".cose"), ".payload") + ".cose"
			}
			if err := durable.WriteFile(out, envelope, 0o644); err != nil {
				return err
			}
			return sheet(s.out, "signed", about, "digest", fmt.Sprintf("%x", sha256.Sum256(payload)), "written", out)
		},
	}
	k.flags(cmd)
	cmd.Flags().StringVar(&kind, "kind", "", "what FILE is: release, warrant or bundle (default: what it can be read as)")
	cmd.Flags().StringVar(&against, "against", "", "the signed trust bundle in force, to say what FILE changes")
	cmd.Flags().BoolVar(&asSUIT, "suit", false, "sign the SUIT manifest of a release, and write the signature to --out")
	cmd.Flags().StringVar(&out, "out", "", "file to write (default FILE with .cose for .payload; an envelope is replaced)")
	_ = cmd.MarkFlagRequired("key") // it exists
	return cmd
}

// showChanges says in words what a trust bundle changes of the one in force, before it is signed.
func showChanges(s streams, typ wire.Type, payload []byte, against string) error {
	if against == "" {
		return nil
	}
	if typ != wire.TypeBundle {
		return usagef("--against is for trust bundles")
	}
	envelope, err := readFile(against, wire.MaxEnvelope)
	if err != nil {
		return err
	}
	before, err := wire.VerifyBundle(nil, envelope)
	if err != nil {
		return fmt.Errorf("%s: %w", against, err)
	}
	b, err := wire.DecodeBundle(payload)
	if err != nil {
		return err
	}
	if b.Product != before.Product || b.Version != before.Version+1 {
		return usagef("--against %s: trust bundle %d of %s is not the one before %d of %s", against, before.Version, before.Product, b.Version, b.Product)
	}
	return printChanges(s.out, before, b)
}

// recognise finds what a file is: a payload, or an envelope around one, of exactly one of the kinds approvers sign.
func recognise(kind string, data []byte) (typ wire.Type, payload []byte, about string, err error) {
	kinds := approvables()
	if kind != "" {
		kinds = slices.DeleteFunc(kinds, func(a approvable) bool { return a.name != kind })
		if len(kinds) == 0 {
			return "", nil, "", usagef("--kind %q: want release, warrant or bundle", kind)
		}
	}
	found := 0
	for _, a := range kinds {
		p := data
		if inner, _, err := wire.ThresholdPayload(a.typ, data); err == nil {
			p = inner
		}
		if text, err := a.about(p); err == nil {
			typ, payload, about = a.typ, p, text
			found++
		}
	}
	switch found {
	case 0:
		return "", nil, "", errors.New("this is neither a release, a warrant nor a trust bundle, nor an envelope of one")
	case 1:
		return typ, payload, about, nil
	}
	return "", nil, "", usagef("this can be read in more than one way: say --kind release, warrant or bundle")
}

// sign makes the first signature over a payload, or adds one to an envelope.
func sign(typ wire.Type, payload, data []byte, signer crypto.Signer) ([]byte, error) {
	if _, _, err := wire.ThresholdPayload(typ, data); err == nil {
		return wire.AddSignature(typ, data, signer)
	}
	return wire.NewThreshold(typ, payload, signer)
}

// readFile reads a file that may not be larger than limit; "-" is not special.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return data, err
}
