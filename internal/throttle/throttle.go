// Package throttle bounds how often somebody may fail to say who they are.
//
// Over all stages, an adapter before the listener for people. Failures are counted by the address they come from (of IPv6, by the
// network that one host has all of), and all together. It guarantees that nobody is shut out by what others do from another address,
// that there is no account to lock, and that a token or session that was good a while ago goes on even from an address that fails:
// behind a proxy everybody has one. Memory is bounded. It trusts the connection for the address, and no header.
package throttle

import (
	"container/list"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// What an address may fail: Burst at once, then one each Every. All addresses together: allBurst, then one each allEvery; beyond it
// only those wait that have failed of late.
const (
	Burst = 30
	Every = 2 * time.Second

	allBurst = 200
	allEvery = 50 * time.Millisecond

	maxAddresses = 10_000 // that are remembered, those that failed last
	maxKnown     = 10_000 // credentials that are remembered as good, those used last
)

// Limiter counts failures.
type Limiter struct {
	now func() time.Time

	mu      sync.Mutex
	all     *rate.Limiter         // guarded by mu, as is what follows
	waiting int                   // requests that are being judged
	each    *recent[netip.Prefix] // by address
	known   *recent[[32]byte]     // credentials that were good
}

// New makes a limiter that goes by now.
func New(now func() time.Time) *Limiter {
	return &Limiter{
		now: now, all: rate.NewLimiter(rate.Every(allEvery), allBurst), each: newRecent[netip.Prefix](maxAddresses), known: newRecent[[32]byte](maxKnown),
	}
}

// record is what is remembered of an address.
type record struct {
	failures *rate.Limiter
	waiting  int // requests of it that are being judged: each counts as a failure until it is known to be none
}

// Sender is whom a connection from remote, host:port, counts for: an IPv6 host chooses among all of its /64. Nobody in particular when that
// does not read.
func Sender(remote string) netip.Prefix {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{}
	}
	ip, bits := ap.Addr().Unmap().WithZone(""), 32
	if ip.Is6() {
		bits = 64
	}
	p, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// Outcome is what an answer says of who asked.
type Outcome int

// Failed: who asked could not say who they are. Proven: what the request carries says who they are. Neither: nothing follows from it.
const (
	Neither Outcome = iota
	Failed
	Proven
)

// enter lets a request be judged, or says how long to wait. done has to be called once, with the outcome.
func (l *Limiter) enter(from netip.Prefix, credential [32]byte) (done func(Outcome), wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	rec, seen := l.each.get(from)
	if !seen {
		rec = &record{failures: rate.NewLimiter(rate.Every(Every), Burst)}
	}
	if _, good := l.known.get(credential); !good {
		if left := rec.failures.TokensAt(now) - float64(rec.waiting); left < 1 {
			return nil, until(left, Every)
		}
		left := l.all.TokensAt(now) - float64(l.waiting)
		if left < 1 && seen && (rec.waiting > 0 || rec.failures.TokensAt(now) < Burst) {
			return nil, until(left, allEvery)
		}
	}
	l.each.put(from, rec)
	rec.waiting++
	l.waiting++
	return func(o Outcome) {
		l.mu.Lock()
		defer l.mu.Unlock()
		rec.waiting--
		l.waiting--
		switch {
		case o == Failed:
			now := l.now()
			rec.failures.AllowN(now, 1)
			l.all.AllowN(now, 1)
			l.known.drop(credential)
		case o == Proven && credential != [32]byte{}:
			l.known.put(credential, nil)
		}
	}, 0
}

func until(left float64, every time.Duration) time.Duration {
	return time.Duration((1 - left) * float64(every))
}

// Watch passes requests on to next as long as their address may fail. outcome says by the status of the answer what it was.
func (l *Limiter) Watch(next http.Handler, outcome func(r *http.Request, status int) Outcome) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		done, wait := l.enter(Sender(r.RemoteAddr), credential(r))
		if wait > 0 {
			refuse(w, r, wait)
			return
		}
		j := &judge{ResponseWriter: w, settle: func(status int) { done(outcome(r, status)) }}
		defer j.settleAs(http.StatusInternalServerError) // a panic, or an answer without a word
		next.ServeHTTP(j, r)
	})
}

// credential names what a request says who it is with; all zeros when with nothing.
func credential(r *http.Request) [32]byte {
	if h := r.Header.Get("Authorization"); h != "" {
		return sha256.Sum256([]byte("header " + h))
	}
	if c := r.Header.Get("Cookie"); c != "" {
		return sha256.Sum256([]byte("cookie " + c))
	}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		return sha256.Sum256(r.TLS.PeerCertificates[0].RawSubjectPublicKeyInfo)
	}
	return [32]byte{}
}

func refuse(w http.ResponseWriter, r *http.Request, wait time.Duration) {
	seconds := int(math.Ceil(wait.Seconds()))
	w.Header().Set("Retry-After", strconv.Itoa(seconds))
	w.Header().Set("Cache-Control", "no-store")
	text := fmt.Sprintf("signing in failed too often from your address: try again in %d s", seconds)
	if strings.Contains(r.Header.Get("Accept"), "text/html") {
		http.Error(w, text, http.StatusTooManyRequests)
		return
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(http.StatusTooManyRequests)
	_ = json.NewEncoder(w).Encode(map[string]any{ // who asked has gone
		"type": "urn:hallmark:fault:access.too-often", "title": "too often", "status": http.StatusTooManyRequests, "detail": text,
	})
}

// judge hears the status of an answer as soon as it is known: a stream of events lasts for hours.
type judge struct {
	http.ResponseWriter
	settle func(status int)
}

func (j *judge) settleAs(status int) {
	if j.settle != nil {
		j.settle(status)
		j.settle = nil
	}
}

// WriteHeader implements http.ResponseWriter.
func (j *judge) WriteHeader(status int) {
	if status >= 200 { // an informational header is not the answer
		j.settleAs(status)
	}
	j.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (j *judge) Write(b []byte) (int, error) {
	j.settleAs(http.StatusOK)
	return j.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (j *judge) Unwrap() http.ResponseWriter { return j.ResponseWriter }

// recent remembers what was put last.
type recent[K comparable] struct {
	most  int
	order *list.List // of K, newest first
	by    map[K]entry
}

type entry struct {
	at  *list.Element
	rec *record
}

func newRecent[K comparable](most int) *recent[K] {
	return &recent[K]{most: most, order: list.New(), by: map[K]entry{}}
}

func (r *recent[K]) get(k K) (*record, bool) {
	e, ok := r.by[k]
	return e.rec, ok
}

func (r *recent[K]) put(k K, rec *record) {
	if e, ok := r.by[k]; ok {
		r.order.MoveToFront(e.at)
		return
	}
	r.by[k] = entry{at: r.order.PushFront(k), rec: rec}
	if r.order.Len() > r.most {
		last := r.order.Remove(r.order.Back()).(K) //nolint:forcetypeassert // only Ks are put in
		delete(r.by, last)
	}
}

func (r *recent[K]) drop(k K) {
	if e, ok := r.by[k]; ok {
		r.order.Remove(e.at)
		delete(r.by, k)
	}
}
