package demo

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/proposal"
	"github.com/hallmark-iot/hallmark/access/signin"
	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/onboard/owner"
	"github.com/hallmark-iot/hallmark/wire"
)

// keeper is an owner of devices: one person, and a key that the server never sees.
type keeper struct {
	d   *demo
	id  string
	who *client.Client
	key *ecdsa.PrivateKey
}

func (d *demo) keeper(ctx context.Context, person, name string) (*keeper, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	k := &keeper{d: d, key: key}
	if err := insist(ctx, func() error {
		o, err := d.people["sam"].CreateOwner(ctx, name)
		k.id = o.ID
		return err
	}); err != nil {
		return nil, err
	}
	return k, insist(ctx, func() error {
		secret, err := d.people["admin"].Token(ctx, httpapi.TokenSpec{
			Caller: "person:" + person, Kind: access.Person, Roles: []access.Role{access.Operator}, Owner: k.id, Use: signin.UseToken, Seconds: 3600,
		})
		k.who = d.people["admin"].As(secret)
		return err
	})
}

// claims takes a device with its code, and waits until the device itself says that it holds its owner.
func (k *keeper) claims(ctx context.Context, a *device, code string) (bool, string) {
	spki, err := wire.SPKIOf(k.key.Public())
	if err != nil {
		return false, err.Error()
	}
	return wait(ctx, 3*time.Minute, func() (bool, string) {
		o, err := k.who.Ownership(ctx, a.id)
		if n := len(o.Periods); err == nil && n > 0 && o.Periods[n-1].Owner == k.id {
			return o.Periods[n-1].Holds, "claimed, and the device has not heard of it yet"
		}
		_, err = k.who.Claim(ctx, a.id, client.ClaimRequest{Code: code, Key: spki})
		return false, observed(err, "claimed")
	})
}

// code makes the code that comes with a device.
func (d *demo) code(ctx context.Context, a *device) (code string, err error) {
	return code, insist(ctx, func() error {
		made, err := d.people["sam"].ClaimCodes(ctx, client.LabelsRequest{Product: productID, Devices: []string{a.id}})
		if err == nil && len(made.Labels) == 1 {
			code = made.Labels[0].Code
		}
		return err
	})
}

// handedOn has a device claimed, and sold on.
func (d *demo) handedOn(ctx context.Context) error {
	d.say("\nOwners: a device is claimed, defends whom it belongs to, and is sold on")
	a := d.agents[0]
	others := slices.DeleteFunc(d.powered(), func(o *device) bool { return o == a })
	d.setLive(others...) // it is waited for
	defer func() { d.setLive(append(others, a)...) }()
	anna, err := d.keeper(ctx, "anna", "Berlin clinic")
	if err != nil {
		return err
	}
	ben, err := d.keeper(ctx, "ben", "Rome clinic")
	if err != nil {
		return err
	}
	code, err := d.code(ctx, a)
	if err != nil {
		return err
	}
	ok, saw := anna.claims(ctx, a, code)
	if ok {
		saw = "it lets go by its owner's key, or the warrant keys, alone"
	}
	if err := d.step(Step{
		Step: "a device is claimed", Device: a.id, Expected: "it knows its owner's key", OK: ok, Observed: saw, Ledger: d.place(ctx, "events", "device.claimed", a.id),
	}); err != nil {
		return err
	}
	if err := d.taken(ctx, a); err != nil {
		return err
	}
	if code, err = anna.sells(ctx, a); err != nil {
		return err
	}
	if code == "" { // the answer was lost, and with it the code: the maker makes another when the device has let go
		if ok, saw := wait(ctx, 90*time.Second, func() (bool, string) {
			code, err = d.code(ctx, a)
			return code != "", observed(err, "no code")
		}); !ok {
			return errors.New("a code for the next owner: " + saw)
		}
	}
	err = insist(ctx, func() error { _, err := anna.who.Device(ctx, a.id); return err })
	if err := d.step(Step{
		Step: "sold: the old owner", Device: a.id, Expected: "sees nothing of it any more", OK: err != nil, Observed: observed(err, "sees it"),
		Ledger: d.place(ctx, "events", "device.transferred", a.id),
	}); err != nil {
		return err
	}
	ok, saw = ben.claims(ctx, a, code)
	if v, err := ben.who.Device(ctx, a.id); ok {
		saw = observed(err, "has it: "+v.Device.Legitimacy)
	}
	return d.step(Step{
		Step: "sold: the new owner", Device: a.id, Expected: "claims it when it has let go", OK: ok, Observed: saw, Ledger: d.place(ctx, "events", "device.claimed", a.id),
	})
}

// taken is what a thief of the server tries: to have the device forget its owner.
func (d *demo) taken(ctx context.Context, a *device) (err error) {
	t, err := d.breakIn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.db.Close()) }()
	return d.refused(ctx, "attack: taken from its owner", a, func() ([]byte, error) { return t.forge(ctx, a, wire.ActDisown, nil, nil) }, "owned")
}

// sells begins the transfer, with the owner's signature, and gives the code for the next owner.
func (k *keeper) sells(ctx context.Context, a *device) (code string, err error) {
	var o client.Ownership
	if err := insist(ctx, func() (err error) { o, err = k.who.Ownership(ctx, a.id); return err }); err != nil {
		return "", err
	}
	warrant, err := leave(a, o.Periods[len(o.Periods)-1].Digest, k.key)
	if err != nil {
		return "", err
	}
	return code, insist(ctx, func() error {
		begun, err := k.who.Transfer(ctx, client.TransferRequest{Devices: []string{a.id}, Kind: owner.Resale, Reason: "sold", Warrants: [][]byte{warrant}})
		if err == nil && len(begun) == 1 {
			code = begun[0].Code
		}
		return err
	}, "access.denied") // it is not hers any more: the answer was lost
}

// leave is what an owner signs so that a device lets go of them.
func leave(a *device, ownership []byte, key crypto.Signer) ([]byte, error) {
	set, err := wire.SetOf([]string{a.id})
	if err != nil {
		return nil, err
	}
	now := time.Now()
	payload, err := wire.EncodeWarrant(wire.Warrant{
		ID: "leave-" + rand.Text(), Product: productID, Act: wire.ActDisown, Devices: set, Owner: ownership,
		Issued: uint64(now.Unix()), Expires: uint64(now.Add(time.Hour).Unix()),
	})
	if err != nil {
		return nil, err
	}
	return wire.NewThreshold(wire.TypeWarrant, payload, key)
}

// keysLost has a device lose all that can be lost, and two people vouch for it.
func (d *demo) keysLost(ctx context.Context) error {
	d.say("\nKeys lost: a device's flash and key store are gone; a voucher of two people brings it back")
	a := d.agents[3]
	d.setLive(slices.DeleteFunc(d.powered(), func(o *device) bool { return o == a })...)
	a.run.stop(os.Interrupt)
	if err := a.forget(); err != nil {
		return err
	}
	secret, err := d.voucher(ctx, a)
	if err != nil {
		return err
	}
	ok, saw := wait(ctx, time.Minute, func() (bool, string) {
		_, err := output(exec.CommandContext(ctx, d.bin.agent, "recover", "--dir", a.dir, "--device", a.id, "--product", productID, "--server", d.devURL, "--voucher", secret))
		return err == nil, observed(err, "it has new keys")
	})
	if err := d.step(Step{
		Step: "a voucher", Device: a.id, Expected: "new keys, by the consent of two", OK: ok, Observed: saw, Ledger: d.place(ctx, "events", "device.rekeyed", a.id),
	}); err != nil {
		return err
	}
	if err := a.on(); err != nil {
		return err
	}
	d.setLive(append(d.powered(), a)...)
	ok, saw = wait(ctx, 90*time.Second, func() (bool, string) {
		v, err := d.seen(ctx, a.id)
		return err == nil && works(v, v.Device.Version) && v.Device.Version != "", tell(v, err)
	})
	return d.step(Step{
		Step: "back to work", Device: a.id, Expected: "enrolled, remade and attested with its new keys", OK: ok, Observed: saw, Ledger: d.place(ctx, "events", "attest.verdict", a.id),
	})
}

// forget takes all that a device has but what nobody can take: its fuses, its counters, its chip's number.
func (a *device) forget() error {
	path := filepath.Join(a.dir, "flash.bin")
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	err = os.WriteFile(path, bytes.Repeat([]byte{0xff}, int(info.Size())), 0o600) //nolint:forbidigo // a fault, and no way to keep something
	return errors.Join(err, os.RemoveAll(filepath.Join(a.dir, "keys")), os.Mkdir(filepath.Join(a.dir, "keys"), 0o700))
}

// voucher is asked for by olga; sam agrees.
func (d *demo) voucher(ctx context.Context, a *device) (secret string, err error) {
	const why = "flash and key store are gone"
	return secret, insist(ctx, func() error {
		var agreed error
		v, err := d.people["olga"].Proposing(why, func(p proposal.Proposal) {
			agreed = insist(ctx, func() error {
				_, err := d.people["sam"].DecideProposal(ctx, p.ID, true, "it lies before me")
				return err
			}, "proposal.decided")
		}).Vouch(ctx, a.id, httpapi.VoucherRequest{Reason: why})
		secret = v.Secret
		return errors.Join(err, agreed)
	})
}

// copied has somebody copy a whole device, and switch the copy on; then a stranger asks whether it is genuine.
func (d *demo) copied(ctx context.Context) error {
	d.say("\nA copy: everything a device holds is copied, and both are switched on")
	a := d.agents[1]
	if err := d.asked(ctx, "a stranger asks", a, "genuine"); err != nil {
		return err
	}
	others := slices.DeleteFunc(d.powered(), func(o *device) bool { return o == a })
	d.setLive(others...)
	a.run.stop(os.Interrupt)
	clone := &device{d: d, id: a.id, dir: filepath.Join(d.dir, "copy")}
	if err := a.duplicate(clone.dir); err != nil {
		return err
	}
	defer clone.run.stop(os.Kill)
	if err := errors.Join(a.on(), clone.on()); err != nil {
		return err
	}
	d.setLive(append(others, a)...)
	ok, saw := wait(ctx, 90*time.Second, func() (bool, string) {
		v, err := d.seen(ctx, a.id)
		return err == nil && v.Device.State == "suspected-clone", tell(v, err)
	})
	if err := d.step(Step{
		Step: "two with one identity", Device: a.id, Expected: "found", OK: ok, Observed: saw, Ledger: d.place(ctx, "events", "device.inconsistent", a.id),
	}); err != nil {
		return err
	}
	return d.asked(ctx, "a stranger asks again", a, "perhaps a copy")
}

// duplicate copies all that a board holds, as somebody could who had it in his hands.
func (a *device) duplicate(to string) error {
	files := []string{"board.json", "flash.bin", "fuses.bin", "counters.bin"}
	keys, err := filepath.Glob(filepath.Join(a.dir, "keys", "*"))
	if err != nil {
		return err
	}
	for _, k := range keys {
		files = append(files, filepath.Join("keys", filepath.Base(k)))
	}
	if err := os.MkdirAll(filepath.Join(to, "keys"), 0o700); err != nil {
		return err
	}
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join(a.dir, f))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, f), data, 0o600); err != nil { //nolint:forbidigo // a copier's work
			return err
		}
	}
	return nil
}

// asked is what anybody can: the signed verdict is checked with nothing but the maker's published root and the logs' keys.
func (d *demo) asked(ctx context.Context, step string, a *device, want string) error {
	root, err := os.ReadFile(d.layout.Cert("oem-root"))
	if err != nil {
		return err
	}
	file := filepath.Join(d.dir, "verdict")
	var exit *exec.ExitError
	ok, saw := wait(ctx, 90*time.Second, func() (bool, string) {
		sum := fmt.Sprintf("%x", sha256.Sum256(root))
		if out, err := output(exec.CommandContext(ctx, d.bin.hallmark, "verify", a.id, "--url", d.console, "--root", sum, "--out", file)); err != nil && !errors.As(err, &exit) {
			return false, out + err.Error()
		}
		out, err := output(exec.CommandContext(ctx, d.bin.hallmark, "verify", file, "--root", sum, "--trust", filepath.Join(d.layout.Logs(), "trust.json")))
		if err != nil && !errors.As(err, &exit) {
			return false, err.Error()
		}
		head, _, _ := strings.Cut(strings.TrimSpace(out), "\n")
		return strings.Contains(strings.ToLower(head), want), head
	})
	return d.step(Step{Step: step, Device: a.id, Expected: want + ", by a signature that is checked offline", OK: ok, Observed: saw})
}
