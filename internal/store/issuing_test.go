package store_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/storetest"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/profile"
)

// Certificates that are asked for at the same moment are stored together, and each is as if it were alone: of one request there is one
// answer, a later one of a device supersedes the earlier, who is revoked gets none, and a write that cannot be made harms itself only.
func TestCertificatesStoredTogetherAreEachAsIfAlone(t *testing.T) {
	db := storetest.Open(t)
	certs, now := db.PKI(), time.Now().UTC().Truncate(time.Millisecond)
	const devices, each = 40, 6
	if _, err := certs.Revoke(t.Context(), []pki.Revocation{{Scope: pki.ScopeDevice, ID: deviceID(3), Reason: pki.KeyCompromise, At: now.Add(-time.Hour)}}); err != nil {
		t.Fatal(err)
	}
	twice := ledger.New(ledger.KindCertIssued, now, "test", deviceID(5), nil, []byte("{}"))
	if _, err := certs.Issue(t.Context(), certOf(5, 99, now), now, now.Add(time.Hour), twice); err != nil {
		t.Fatal(err)
	}
	type outcome struct {
		kept pki.Issued
		err  error
	}
	got := make([][each]outcome, devices)
	var all sync.WaitGroup
	for d := range devices {
		for n := range each { // two by two they answer one request
			all.Go(func() {
				c := certOf(d, n, now)
				fact := ledger.New(ledger.KindCertIssued, now, "test", c.Device, nil, []byte("{}"))
				if d == 4 {
					fact = twice
				}
				got[d][n].kept, got[d][n].err = certs.Issue(t.Context(), c, now, now.Add(time.Hour), fact)
			})
		}
	}
	all.Wait()
	for d := range devices {
		answers := map[[32]byte]string{}
		for n, o := range got[d] {
			switch {
			case d == 3:
				if !errors.Is(o.err, pki.ErrRevoked) {
					t.Errorf("a device that is revoked: %v", o.err)
				}
			case d == 4:
				if o.err == nil {
					t.Errorf("a fact that is there already: certificate %d was stored", n)
				}
			case o.err != nil:
				t.Errorf("device %d, certificate %d: %v", d, n, o.err)
			case answers[o.kept.Request] != "" && answers[o.kept.Request] != o.kept.Key:
				t.Errorf("device %d: %s and %s for one request", d, answers[o.kept.Request], o.kept.Key)
			default:
				answers[o.kept.Request] = o.kept.Key
			}
		}
		held, err := certs.Certificates(t.Context(), deviceID(d), "", 100)
		want := each / 2
		switch d {
		case 3, 4:
			want = 0
		case 5:
			want++
		}
		open := 0
		for _, c := range held {
			if c.Ended.IsZero() {
				open++
			}
		}
		if err != nil || len(held) != want || open != min(want, 1) {
			t.Errorf("device %d: %d certificates, of which %d go on; want %d and one (%v)", d, len(held), open, want, err)
		}
	}
}

func certOf(device, n int, now time.Time) pki.Issued {
	key := fmt.Sprintf("%040x/%x-%x", 1, device, n)
	return pki.Issued{
		Key: key, Request: [32]byte{byte(device), byte(n / 2), 1}, Device: deviceID(device), Role: profile.LDevID, Issuer: fmt.Sprintf("%040x", 1), Serial: fmt.Sprintf("%x%02x", device+1, n),
		NotBefore: now.Add(-time.Minute), NotAfter: now.Add(24 * time.Hour), DER: []byte(key), By: fmt.Sprintf("%040x/%x", 2, device),
	}
}

// Who goes away while others wait takes nobody with it.
func TestWhoGoesAwayTakesNobodyWithIt(t *testing.T) {
	db := storetest.Open(t)
	certs, now := db.PKI(), time.Now()
	gone, goAway := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for d := range 64 {
		ctx := t.Context()
		if d%2 == 0 {
			ctx = gone
		}
		all.Go(func() {
			if d == 10 {
				goAway()
			}
			if _, err := certs.Issue(ctx, certOf(d, 0, now), now, now.Add(time.Hour)); err != nil && d%2 == 1 {
				t.Errorf("device %d: %v", d, err)
			}
		})
	}
	all.Wait()
	goAway()
}

// Each request's answer names the facts of its own certificate, and to collect them does not keep it from being stored with others.
func TestCertificatesStoredTogetherNameEachItsFacts(t *testing.T) {
	db := storetest.Open(t)
	certs, now := db.PKI(), time.Now()
	const devices = 64
	var most, writes atomic.Int64
	db.IssuedAtOnce(func(n int) {
		writes.Add(1)
		most.Store(max(most.Load(), int64(n)))
	})
	free, held := make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() { // the writer is busy while they come
		if err := db.Write(t.Context(), func(*store.Tx) error { close(held); <-free; return nil }); err != nil {
			t.Error(err)
		}
	})
	<-held
	asked := make(chan struct{}, devices)
	for d := range devices {
		all.Go(func() {
			ctx, got := ledger.WithReceipts(t.Context())
			c := certOf(d, 0, now)
			fact := ledger.New(ledger.KindCertIssued, now, "test", c.Device, nil, []byte("{}"))
			asked <- struct{}{}
			if _, err := certs.Issue(ctx, c, now, now.Add(time.Hour), fact); err != nil {
				t.Errorf("device %d: %v", d, err)
			}
			want := ledger.Receipt{Log: ledger.Events, UID: fact.UID}.String()
			if names, n := got.Names(devices); names != want || n != 1 {
				t.Errorf("device %d: its answer names %q, want %q", d, names, want)
			}
		})
	}
	for range devices {
		<-asked
	}
	close(free)
	all.Wait()
	if most.Load() < 2 || writes.Load() == devices {
		t.Errorf("%d certificates in %d writes, at most %d in one", devices, writes.Load(), most.Load())
	}
}
