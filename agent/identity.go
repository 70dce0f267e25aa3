package agent

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/renewal"
	"github.com/hallmark-iot/hallmark/suite"
)

// connect makes sure of a valid operational identity and a line that uses it.
func (a *Agent) connect(ctx context.Context) error {
	renew, err := a.identityDue(a.now())
	switch {
	case err != nil:
		if err := a.enrol(ctx, false); err != nil {
			return fmt.Errorf("enrol: %w", err)
		}
	case (renew || a.disowned) && !a.now().Before(a.againAt):
		if err := a.renew(ctx); err != nil {
			return err
		}
	}
	if a.server != nil {
		return nil
	}
	s, err := a.c.Dial(a.certificate, a.c.Machine.Facts().Bundle.Anchors, a.now)
	if err != nil {
		return err
	}
	a.setServer(s)
	return nil
}

// renew asks for the next certificate while the present one still works. A server that has none to give is not asked at each check-in. A
// device that is disowned asks until it has another, more and more rarely: nobody was there, a person has still to decide, or to say that it is no copy.
func (a *Agent) renew(ctx context.Context) error {
	anew := a.disowned
	err := a.enrol(ctx, !anew)
	switch {
	case err == nil:
		a.renewals = 0
	case fatal(err):
		return err
	default:
		a.strays(err, 0)
		longest := renewalPause
		if anew && !answered(err) {
			longest = maxBackoff
		}
		if !anew {
			if err := a.reassured(); err != nil {
				return err
			}
		}
		a.renewals++
		wait := renewal.Again(a.c.PollMin, longest, a.renewals, askedToWait(err), rand.Float64())
		a.againAt = a.now().Add(wait)
		a.log.Warn("no new certificate; the present one stays", "error", err, "again_in", wait)
	}
	return nil
}

// renewalPause is the longest pause between attempts to renew.
const renewalPause = time.Hour

// A server that refuses a device so often in a row may know its certificate no more: it was revoked, or the device was lost and found.
// Then it enrols anew with its factory identity, by which it is always known; the present certificate stays until there is another. The count
// is kept over restarts: a device that restarts all the time gets there as well.
const (
	disownedAfter = 5
	disownedPause = time.Hour // between attempts that changed nothing, at least: a server that is only ill is not asked for certificates all the time
)

// doubt notes a failure. Only a server that understands, and refuses, can disown: one that is ill has said nothing of the certificate.
func (a *Agent) doubt(err error, now time.Time) error {
	if !answered(err) || a.disowned || a.silent() || !now.After(a.doubtAt) {
		return nil
	}
	next := a.m
	next.Doubts++
	if err := a.save(next); err != nil {
		return local(err)
	}
	if a.m.Doubts >= disownedAfter {
		a.disowned, a.doubtAt = true, now.Add(jitter(disownedPause))
		a.log.Warn("the server refuses this device's certificate: it enrols anew, with its factory identity", "error", err)
	}
	return nil
}

// answered reports whether err is a server's no.
func answered(err error) bool {
	var refused interface{ Refused() bool }
	op, remote := errors.AsType[*net.OpError](err) // crypto/tls tells of the other side's alerts so, and has no type of its own for them
	return errors.As(err, &refused) && refused.Refused() || remote && op.Op == "remote error"
}

// reassured begins the count anew: the server knows the device, or says that it has no other certificate for it yet.
func (a *Agent) reassured() error {
	if a.m.Doubts == 0 || a.silent() {
		return nil
	}
	next := a.m
	next.Doubts = 0
	return local(a.save(next))
}

func (a *Agent) setServer(s Server) {
	a.server = s
	a.line.Store(&s)
}

var errNoIdentity = errors.New("no operational certificate")

// identityDue reports whether it is time to renew (renewal.RenewAt); an error when there is no certificate that could still be used.
func (a *Agent) identityDue(now time.Time) (bool, error) {
	if len(a.m.LDevID) == 0 {
		return false, errNoIdentity
	}
	leaf, err := x509.ParseCertificate(a.m.LDevID[0])
	if err != nil {
		return false, err
	}
	if !now.Before(leaf.NotAfter) {
		return false, errNoIdentity
	}
	if _, err := a.c.Keys.Signer(a.m.Key); err != nil {
		return false, err
	}
	if !a.certifies(leaf.PublicKey) {
		return true, nil
	}
	if a.renewAt.IsZero() {
		a.renewAt = renewal.RenewAt(leaf.NotBefore, leaf.NotAfter, rand.Float64())
	}
	return now.After(a.renewAt), nil
}

// certificate is what the device shows in the TLS handshake.
func (a *Agent) certificate() (*tls.Certificate, error) {
	c := a.cert.Load()
	if c == nil {
		return nil, errNoIdentity
	}
	return c, nil
}

func (a *Agent) loadCertificate() error {
	if len(a.m.LDevID) == 0 {
		return nil
	}
	key, err := a.c.Keys.Signer(a.m.Key)
	if errors.Is(err, hw.ErrNoKey) {
		return nil // enrols anew
	}
	if err != nil {
		return local(err)
	}
	a.cert.Store(&tls.Certificate{Certificate: a.m.LDevID, PrivateKey: key})
	return nil
}

// enrol gets a certificate for a fresh key. Two names take turns, so that the old key stays until the new one is certified
// and recorded: a cut anywhere leaves one that works.
func (a *Agent) enrol(ctx context.Context, renew bool) error {
	old := a.m.Key
	name := hw.Other(hw.KeyLDevID, old)
	// Who asks again asks for the same key: an answer that was lost, or that a person has still to give, is for that one.
	if a.asked != name {
		if err := a.c.Keys.Destroy(name); err != nil {
			return local(err)
		}
		if err := a.make(name, suite.Suite.Certified); err != nil {
			return local(err)
		}
		a.asked = name
	}
	key, err := a.c.Keys.Signer(name)
	if err != nil {
		a.asked = "" // it was destroyed meanwhile
		return local(err)
	}
	e := Enrolment{Device: a.c.Machine.Facts().Device, Key: key, Renew: renew, Now: a.now}
	if renew {
		cert, err := a.certificate()
		if err != nil {
			return err
		}
		e.As = *cert
	} else {
		id, err := a.c.Keys.Signer(hw.KeyIDevID)
		if err != nil {
			return local(err)
		}
		e.As = tls.Certificate{Certificate: a.c.IDevID, PrivateKey: id}
	}
	chain, err := a.c.Enrol(ctx, e)
	if oldSuite(err) {
		a.asked = "" // another key, when the bundle says which
	}
	if err != nil {
		return err
	}
	a.asked = "" // answered: a bad answer would be the same again
	a.disowned = false
	if err := a.checkEnrolled(chain, key.Public()); err != nil {
		return err
	}
	next := a.m
	next.LDevID, next.Key, next.Doubts = chain, name, 0
	if err := a.save(next); err != nil {
		return local(err)
	}
	if old != "" && old != name {
		if err := a.c.Keys.Destroy(old); err != nil {
			return local(err)
		}
	}
	a.renewAt = time.Time{}
	if a.server != nil {
		a.server.Close()
	}
	if err := a.loadCertificate(); err != nil {
		return err
	}
	return a.record(eventEnrolled, nil, map[bool]string{false: "enrolled", true: "renewed"}[renew])
}

// make makes a key of the newest suite of the trust bundle that the key store has: keys holds what of a suite the key is for. Without a bundle
// it is the suite that every device begins with.
func (a *Agent) make(name string, of func(suite.Suite) suite.ID) error {
	for _, id := range slices.Backward(a.suites()) {
		set, err := suite.Get(suite.ID(id))
		if err != nil {
			continue // newer than this program
		}
		_, err = a.c.Keys.Generate(name, of(set))
		if !errors.Is(err, hw.ErrSuite) {
			return err
		}
		a.log.Warn("this device makes no keys of a suite that the trust bundle wants", "suite", set.ID)
	}
	return fmt.Errorf("the trust bundle accepts %v: %w", a.suites(), hw.ErrSuite)
}

// suites are those that the trust bundle accepts, the one that it wants last.
func (a *Agent) suites() []string {
	if s := a.c.Machine.Facts().Bundle.Suites; len(s) > 0 {
		return s
	}
	return []string{string(suite.P256)}
}

// certifies says whether a suite that the trust bundle accepts has such keys in certificates.
func (a *Agent) certifies(pub crypto.PublicKey) bool {
	known := false
	for _, id := range a.suites() {
		set, err := suite.Get(suite.ID(id))
		if err != nil {
			continue
		}
		if set.Certifies(pub) {
			return true
		}
		known = true
	}
	return !known // a program that knows none of them keeps what it has
}

// oldSuite says whether a key was refused for its suite: the fleet has moved on while this device was away.
func oldSuite(err error) bool {
	refused, ok := errors.AsType[interface {
		error
		Because(code string) bool
	}](err)
	return ok && refused.Because("csr.suite")
}

func (a *Agent) checkEnrolled(chain [][]byte, pub any) error {
	if len(chain) == 0 || len(chain) > 6 {
		return fmt.Errorf("enrolment answered with %d certificates", len(chain))
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return fmt.Errorf("enrolment: %w", err)
	}
	k, ok := leaf.PublicKey.(interface {
		Equal(x crypto.PublicKey) bool
	})
	if !ok || !k.Equal(pub) {
		return errors.New("enrolment answered with a certificate for another key")
	}
	if id := a.c.Machine.Facts().Device; leaf.Subject.SerialNumber != id {
		return fmt.Errorf("enrolment answered with a certificate for %q, this is %s", leaf.Subject.SerialNumber, id)
	}
	return nil
}
