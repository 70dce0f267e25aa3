package rite

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/internal/keys/pkcs11"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/ceremony"
	"github.com/hallmark-iot/hallmark/wire"
)

func base(file string) string { b, _, _ := strings.Cut(file, "."); return b }

func rootName(key string) string    { return key + ".der" }
func bundleName(file string) string { return base(file) + ".bundle" }
func listName(file string) string   { return base(file) + ".crl" }

func grantName(file string, a ceremony.Asked) string {
	parts := []string{base(file), a.Role}
	for _, p := range []string{a.Product, a.Unit} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, "-") + ".grant"
}

// preview says what a step will do, and reads what goes into it.
func (r *run) preview(st ceremony.Step) (lines []string, in []wire.Named, err error) {
	for _, f := range []string{st.File, st.Current} {
		if f == "" {
			continue
		}
		data, err := r.file(f)
		if err != nil {
			return nil, nil, err
		}
		sum := sha256.Sum256(data)
		in = append(in, wire.Named{Name: f, SHA256: sum[:]})
		lines = append(lines, fmt.Sprintf("  file %-28s %s", f, ceremony.Fingerprint(sum)))
	}
	if st.Key != "" {
		k, _ := r.s.KeyOf(st.Key)
		who := "of " + k.Holders[0]
		if len(k.Holders) > 1 {
			who = fmt.Sprintf("of any %d of %s", k.Need, strings.Join(k.Holders, ", "))
		}
		lines = append(lines, "  key  "+st.Key+" "+who)
	}
	more, err := r.about(st)
	return append(lines, more...), in, err
}

// about reads from the files themselves what people decide on.
func (r *run) about(st ceremony.Step) (lines []string, err error) {
	switch st.Do {
	case ceremony.DoGrant:
		data, err := r.file(st.File)
		if err != nil {
			return nil, err
		}
		asked, err := ceremony.OpenRequests(data)
		for _, a := range asked {
			if a.OEM != r.s.OEM {
				return nil, fmt.Errorf("%s asks for a CA of OEM %s, this is a ceremony of %s", st.File, a.OEM, r.s.OEM)
			}
			lines = append(lines, fmt.Sprintf("  %s CA %s%s for %s: %s", a.Role, a.Product, a.Unit, a.Instance, a.Purpose),
				"    request   "+ceremony.Fingerprint(a.Digest), "    its key   "+ceremony.Fingerprint(sha256.Sum256(a.SPKI)))
		}
		return lines, err
	case ceremony.DoList:
		req, err := r.listRequest(st)
		lines = append(lines, fmt.Sprintf("  list %d of revoked CAs, until %s: %s", req.Number, stamp(req.Until), req.Purpose))
		for _, e := range req.Revoked {
			lines = append(lines, fmt.Sprintf("    %s, serial %x, reason %d", e.Name, e.Serial, e.Reason))
		}
		return lines, err
	case ceremony.DoBundle:
		_, b, err := r.bundle(st)
		if err != nil {
			return nil, err
		}
		return []string{fmt.Sprintf("  trust bundle %d of product %s: root %d of %d keys, releases %d of %d, warrants %d of %d, %d witnesses, floor %d", b.Version, b.Product,
			b.Root.Threshold, len(b.Root.Keys), b.Release.Threshold, len(b.Release.Keys), b.Warrant.Threshold, len(b.Warrant.Keys), len(b.Witnesses), b.Floor)}, nil
	case ceremony.DoChange:
		for _, id := range st.Remove {
			lines = append(lines, "  goes  "+id)
		}
		for _, k := range st.Add {
			lines = append(lines, "  comes "+k)
		}
	}
	return lines, nil
}

func stamp(unix uint64) string { return time.Unix(int64(unix), 0).UTC().Format(time.RFC3339) }

// do carries out one step. It may be done again after an interruption: what it writes, it writes whole, and the same.
func (r *run) do(ctx context.Context, st ceremony.Step, done *wire.Step) error {
	switch st.Do {
	case ceremony.DoBeacon:
		return r.beacon(ctx, done)
	case ceremony.DoMakeKey:
		return r.makeKey(ctx, st, done)
	case ceremony.DoRestore:
		delete(r.signer, st.Key) // as if the machine had been off
		done.Note = "restored from shares"
		return r.use(ctx, st.Key, done)
	case ceremony.DoRoot:
		return r.makeRoot(ctx, st, done)
	case ceremony.DoGrant:
		return r.grant(ctx, st, done)
	case ceremony.DoList:
		return r.list(ctx, st, done)
	case ceremony.DoChange:
		return r.change(ctx, st, done)
	case ceremony.DoBundle:
		return r.signBundle(ctx, st, done)
	case ceremony.DoVerify:
		return r.verify(done)
	case ceremony.DoDestroy:
		return r.destroy(ctx, st, done)
	}
	return errors.New("nothing that is done at a ceremony")
}

// use opens a key and names it in the record.
func (r *run) use(ctx context.Context, key string, done *wire.Step) error {
	s, err := r.open(ctx, key)
	if err != nil {
		return err
	}
	done.SPKI, err = wire.SPKIOf(s.Public())
	return err
}

// beacon mixes nothing into any key: it shows that the transcript was not made before that was known.
func (r *run) beacon(ctx context.Context, done *wire.Step) error {
	text, err := r.desk.Type(ctx, "throw dice, or type today's headline")
	if err != nil {
		return err
	}
	if strings.TrimSpace(text) == "" {
		return errors.New("nothing was typed")
	}
	done.Note = fmt.Sprintf("sha256 of what was typed: %x", sha256.Sum256([]byte(text)))
	return r.write(done, "beacon.txt", []byte(text+"\n"))
}

func (r *run) makeKey(ctx context.Context, st ceremony.Step, done *wire.Step) (err error) {
	k, _ := r.s.KeyOf(st.Key)
	if done.Note, err = r.make(ctx, k); err != nil {
		return err
	}
	if err := r.use(ctx, st.Key, done); err != nil {
		return err
	}
	return r.write(done, st.Key+".pub", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: done.SPKI}))
}

func (r *run) makeRoot(ctx context.Context, st ceremony.Step, done *wire.Step) error {
	if err := r.use(ctx, st.Key, done); err != nil {
		return err
	}
	root, err := pki.NewRoot(r.oem, r.signer[st.Key], r.o.Now())
	if err != nil {
		return err
	}
	r.root = root.Cert
	return r.write(done, rootName(st.Key), root.Cert.Raw)
}

func (r *run) grant(ctx context.Context, st ceremony.Step, done *wire.Step) error {
	data, err := r.file(st.File)
	if err != nil {
		return err
	}
	asked, err := ceremony.OpenRequests(data)
	if err != nil {
		return err
	}
	root, err := r.authority(ctx, st.Key)
	if err != nil {
		return err
	}
	if err := r.use(ctx, st.Key, done); err != nil {
		return err
	}
	for _, a := range asked {
		grant, err := ceremony.Grant(root, a, r.oem, r.o.Now())
		if err != nil {
			return err
		}
		if _, err := ceremony.CheckGrant(grant, a, root.Cert, r.oem); err != nil {
			return err
		}
		if err := r.write(done, grantName(st.File, a), grant); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) listRequest(st ceremony.Step) (wire.CRLRequest, error) {
	data, err := r.file(st.File)
	if err != nil {
		return wire.CRLRequest{}, err
	}
	return wire.DecodeCRLRequest(data)
}

func (r *run) list(ctx context.Context, st ceremony.Step, done *wire.Step) error {
	req, err := r.listRequest(st)
	if err != nil {
		return err
	}
	root, err := r.authority(ctx, st.Key)
	if err != nil {
		return err
	}
	if err := r.use(ctx, st.Key, done); err != nil {
		return err
	}
	if r.o.Rehearsal {
		req.Issuer = root.Cert.Raw // the real root is not here
	}
	der, err := ceremony.SignList(root, req)
	if err != nil {
		return err
	}
	return r.write(done, listName(st.File), der)
}

// spki finds the public key of one that a step has made or used.
func (r *run) spki(key string) ([]byte, error) {
	for _, st := range r.steps {
		if st.Key == key && len(st.SPKI) > 0 {
			return st.SPKI, nil
		}
	}
	return nil, fmt.Errorf("key %s was neither made nor used yet", key)
}

func (r *run) change(ctx context.Context, st ceremony.Step, done *wire.Step) error {
	current, err := r.file(st.File)
	if err != nil {
		return err
	}
	var add [][]byte
	for _, name := range st.Add {
		k, err := r.open(ctx, name)
		if err != nil {
			return err
		}
		der, err := wire.SPKIOf(k.Public())
		if err != nil {
			return err
		}
		add = append(add, der)
	}
	payload, err := ceremony.ChangeApprovers(current, add, st.Remove, r.o.Now())
	if err != nil {
		return err
	}
	return r.write(done, ceremony.NextName(st.File), payload)
}

// bundle gives the payload to be signed: the file, or the draft in a request, filled with what was made here.
func (r *run) bundle(st ceremony.Step) (payload []byte, b wire.Bundle, err error) {
	data, err := r.file(st.File)
	if err != nil {
		return nil, b, err
	}
	req, err := wire.DecodeCeremonyRequest(data)
	if err != nil { // no request: a payload
		b, err := wire.DecodeBundle(data)
		return data, b, err
	}
	var keys [][]byte
	for _, who := range req.Approvers {
		k, err := r.spki(ceremony.ApproverKey(who))
		if err != nil {
			return nil, b, err
		}
		keys = append(keys, k)
	}
	var root []byte
	if req.NewRoot {
		if err := r.findRoot(); err != nil {
			return nil, b, err
		}
		if r.root == nil {
			return nil, b, errors.New("the trust bundle needs a root, and none is made yet")
		}
		root = r.root.Raw
	}
	if b, err = req.Fill(keys, root); err != nil {
		return nil, b, err
	}
	payload, err = wire.EncodeBundle(b)
	return payload, b, err
}

func (r *run) signBundle(ctx context.Context, st ceremony.Step, done *wire.Step) error {
	payload, _, err := r.bundle(st)
	if err != nil {
		return err
	}
	if err := r.use(ctx, st.Key, done); err != nil {
		return err
	}
	typ := ceremony.BundleType(r.o.Rehearsal)
	name := bundleName(st.File)
	envelope, err := os.ReadFile(r.out(name))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		envelope, err = wire.NewThreshold(typ, payload, r.signer[st.Key])
	case err == nil:
		kid, idErr := wire.KeyIDOf(r.signer[st.Key].Public())
		p, who, openErr := wire.ThresholdPayload(typ, envelope)
		if err := errors.Join(idErr, openErr); err != nil {
			return err
		}
		if string(p) != string(payload) {
			return fmt.Errorf("%s is of another trust bundle", r.out(name))
		}
		if !slices.Contains(who, kid) { // an interrupted attempt may have signed
			envelope, err = wire.AddSignature(typ, envelope, r.signer[st.Key])
		}
	}
	if err != nil {
		return err
	}
	return r.write(done, name, envelope)
}

// verify reads everything that was made again, and checks it with what checks it later.
func (r *run) verify(done *wire.Step) error {
	for _, f := range r.made() {
		data, err := os.ReadFile(r.out(f.Name))
		if err != nil {
			return err
		}
		if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != hex.EncodeToString(f.SHA256) {
			return fmt.Errorf("%s is not what was made", f.Name)
		}
	}
	cas, bundles := 0, map[string]ceremony.Step{}
	for i, st := range r.s.Steps[:len(r.steps)] {
		switch st.Do {
		case ceremony.DoGrant:
			if err := r.verifyGrants(st); err != nil {
				return err
			}
			cas += len(r.steps[i].Out)
		case ceremony.DoBundle:
			bundles[st.File] = st
		}
	}
	for _, st := range bundles {
		if err := r.verifyBundle(st); err != nil {
			return err
		}
	}
	done.Note = fmt.Sprintf("%d files, %d CAs and %d trust bundles are as they should be", len(r.made()), cas, len(bundles))
	return nil
}

func (r *run) verifyGrants(st ceremony.Step) error {
	data, err := r.file(st.File)
	if err != nil {
		return err
	}
	asked, err := ceremony.OpenRequests(data)
	if err != nil {
		return err
	}
	for _, a := range asked {
		grant, err := os.ReadFile(r.out(grantName(st.File, a)))
		if err != nil {
			return err
		}
		if _, err := ceremony.CheckGrant(grant, a, r.root, r.oem); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) verifyBundle(st ceremony.Step) error {
	envelope, err := os.ReadFile(r.out(bundleName(st.File)))
	if err != nil {
		return err
	}
	if r.o.Rehearsal { // signed by keys of the rehearsal, which are in no real bundle
		_, _, err := wire.ThresholdPayload(wire.Rehearsal(wire.TypeBundle), envelope)
		return err
	}
	var current *wire.Bundle
	if st.Current != "" {
		data, err := r.file(st.Current)
		if err != nil {
			return err
		}
		b, err := wire.VerifyBundle(nil, data)
		if err != nil {
			return fmt.Errorf("%s: %w", st.Current, err)
		}
		current = &b
	}
	_, err = wire.VerifyBundle(current, envelope)
	return err
}

func (r *run) destroy(ctx context.Context, st ceremony.Step, done *wire.Step) error {
	k, _ := r.s.KeyOf(st.Key)
	if k.PKCS11 != nil {
		return r.destroyInToken(ctx, k, done)
	}
	dir, err := r.find(st.Key)
	if err != nil { // an interrupted attempt has removed it
		if done.SPKI, err = r.spki(st.Key); err != nil {
			return err
		}
		return nil
	}
	if err := r.use(ctx, st.Key, done); err != nil {
		return err
	}
	delete(r.signer, st.Key)
	if err := os.Remove(filepath.Join(dir, st.Key+".key")); err != nil {
		return err
	}
	done.Note = "removed from " + dirKeys + "; copies elsewhere are for their holders to destroy"
	return durable.SyncDir(dir)
}

func (r *run) destroyInToken(ctx context.Context, k ceremony.Key, done *wire.Step) error {
	t, err := r.token(ctx, k)
	if err != nil {
		return err
	}
	err = r.use(ctx, k.Name, done)
	if errors.Is(err, pkcs11.ErrNoKey) { // an interrupted attempt has destroyed it
		done.SPKI, err = r.spki(k.Name)
		return err
	}
	if err != nil {
		return err
	}
	delete(r.signer, k.Name)
	done.Note = fmt.Sprintf("destroyed in token %s: %s", k.PKCS11.Token, t.About())
	return t.Destroy(ctx, k.Name)
}

// finish has all who hold a key sign the transcript, and gathers what goes back to the instance.
func (r *run) finish(ctx context.Context) (Done, error) {
	t := r.head()
	t.Steps = r.steps
	for _, p := range r.s.People {
		who := wire.Participant{Label: p.ID, Part: p.Part}
		if p.Key != "" {
			s, err := r.open(ctx, p.Key)
			if err != nil {
				return Done{}, err
			}
			if who.SPKI, err = wire.SPKIOf(s.Public()); err != nil {
				return Done{}, err
			}
		}
		t.People = append(t.People, who)
	}
	payload, err := wire.EncodeTranscript(t)
	if err != nil {
		return Done{}, err
	}
	r.desk.Say("", "The transcript, to be signed by all who have a key:", "  "+ceremony.Fingerprint(sha256.Sum256(payload)))
	var envelope []byte
	for _, p := range r.s.People {
		if p.Key == "" {
			continue
		}
		if err := r.desk.Confirm(ctx, p.ID, "sign the transcript"); err != nil {
			return Done{}, err
		}
		if envelope == nil {
			envelope, err = wire.NewThreshold(t.TranscriptType(), payload, r.signer[p.Key])
		} else {
			envelope, err = wire.AddSignature(t.TranscriptType(), envelope, r.signer[p.Key])
		}
		if err != nil {
			return Done{}, err
		}
	}
	if _, err := wire.OpenTranscript(envelope); err != nil {
		return Done{}, err
	}
	if err := ceremony.Follows(t, r.o.Script); err != nil {
		return Done{}, err
	}
	if err := durable.WriteFile(r.out(fileTranscript), envelope, 0o644); err != nil {
		return Done{}, err
	}
	done := Done{Transcript: t, Out: r.made()}
	done.Answer, err = r.answer(envelope)
	return done, err
}

// answer gathers what the instance asked for in a CeremonyRequest.
func (r *run) answer(transcript []byte) (string, error) {
	for _, f := range r.s.Files {
		data, err := r.file(f.Name)
		if err != nil {
			return "", err
		}
		req, err := wire.DecodeCeremonyRequest(data)
		if err != nil {
			continue
		}
		sum := sha256.Sum256(data)
		a := wire.CeremonyAnswer{Request: sum[:], Transcript: transcript, Rehearsal: r.o.Rehearsal}
		if r.root == nil {
			return "", errors.New("the ceremony had no root's certificate")
		}
		a.Root = r.root.Raw
		asked, err := ceremony.OpenRequests(data)
		if err != nil {
			return "", err
		}
		for _, one := range asked {
			g, err := os.ReadFile(r.out(grantName(f.Name, one)))
			if err != nil {
				return "", fmt.Errorf("%s asks for a CA that the script does not grant: %w", f.Name, err)
			}
			a.Grants = append(a.Grants, g)
		}
		if req.Draft != nil {
			if a.Bundle, err = os.ReadFile(r.out(bundleName(f.Name))); err != nil {
				return "", fmt.Errorf("%s asks for a trust bundle that the script does not sign: %w", f.Name, err)
			}
		}
		out, err := wire.EncodeCeremonyAnswer(a)
		if err != nil {
			return "", err
		}
		name := base(f.Name) + ".answer"
		return r.out(name), durable.WriteFile(r.out(name), out, 0o644)
	}
	return "", nil
}
