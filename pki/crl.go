package pki

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"math/big"
	"runtime"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/pki/profile"
)

// crlLife is how long a list may be used; it is made anew after half of that, or when something is revoked that cannot wait.
const crlLife = 24 * time.Hour

// List is a published list of revoked certificates (RFC 5280 §5) of one shard.
type List struct {
	ListID
	Number  int64     // rises with each list of its name, on whatever node it is made
	Through int64     // Seq of the newest entry that it takes account of
	Made    time.Time // when it was signed
	Next    time.Time // when it may not be used any more
	DER     []byte    // empty where only the state is asked for
}

// ListStore keeps the published lists.
type ListStore interface {
	// PutLists stores lists, each unless one of a higher number, or that knows of more, is there. It is durable on nil.
	PutLists(ctx context.Context, lists []List) error
	// List gives one, or ErrNoList.
	List(ctx context.Context, id ListID) (List, error)
	// Lists gives the states of all lists of a CA, without their bytes.
	Lists(ctx context.Context, issuer string) ([]List, error)
	// DropRevocations forgets up to limit entries of replaced certificates that ended before the moment.
	DropRevocations(ctx context.Context, before time.Time, limit int) (int, error)
}

// ErrNoList says that there is no such list.
var ErrNoList error = fault.New(fault.NotFound, "crl.unknown", "no such list of revocations", "take the address that stands in the certificate")

func shardOf(serial *big.Int, n int) int {
	return int(new(big.Int).Mod(serial, big.NewInt(int64(n))).Int64())
}

// listURL is where a list is published; empty when no address is known.
func (s *Service) listURL(id ListID) string {
	if s.c.CRLBase == "" {
		return ""
	}
	return s.c.CRLBase + "/crl/" + id.Issuer + "/" + id.File()
}

// File is the last part of a list's address.
func (id ListID) File() string {
	if id.Shard == CAList {
		return "ca.crl"
	}
	return strconv.Itoa(id.Shard) + ".crl"
}

// ParseListFile reads what File wrote.
func ParseListFile(issuer, file string) (ListID, bool) {
	raw, err := hex.DecodeString(issuer)
	if err != nil || len(raw) == 0 || len(raw) > 32 || hex.EncodeToString(raw) != issuer {
		return ListID{}, false
	}
	if file == "ca.crl" {
		return ListID{issuer, CAList}, true
	}
	for i, c := range []byte(file) {
		if c < '0' || c > '9' {
			n, err := strconv.Atoi(file[:i])
			id := ListID{issuer, n}
			return id, err == nil && i <= 5 && id.File() == file
		}
	}
	return ListID{}, false
}

// List gives a published list. It is public, so nobody is asked who they are, and nobody can have one signed by asking. One that has run
// out is not given: it would say of what was revoked since that it is good.
func (s *Service) List(ctx context.Context, id ListID) (List, error) {
	l, err := s.c.Lists.List(ctx, id)
	if err != nil {
		return List{}, err
	}
	if now := s.c.Now(); !now.Before(l.Next) {
		return List{}, fault.New(fault.Unavailable, "crl.old", fmt.Sprintf("the list %s of CA %s has run out on %s", id.File(), id.Issuer, l.Next.Format(time.RFC3339)), "look why no new one was signed")
	}
	return l, nil
}

// lister is what KeepLists remembers between its rounds.
type lister struct {
	kept   atomic.Int64 // newest pressing entry that all lists have
	looked atomic.Int64 // when all lists were looked at, Unix ms
}

// listEvery is how often the lists are looked at when nothing was revoked.
const listEvery = time.Minute

// listPage is how many lists are stored in one transaction: some MB at a million revoked certificates.
const listPage = 64

// KeepLists signs what is due: lists that have to take in what was revoked, and those that are half used up. Call it often, on one node:
// when there is nothing to do it costs nothing. It is no verb: what is in a list was decided by those who revoked.
func (s *Service) KeepLists(ctx context.Context) error {
	now, pressing := s.c.Now().UTC(), s.c.Revocations.pressing()
	if pressing <= s.lister.kept.Load() && now.Sub(time.UnixMilli(s.lister.looked.Load())).Abs() < listEvery {
		return nil
	}
	for _, a := range s.c.Held.All() {
		if err := s.keepLists(ctx, a, now); err != nil {
			return err
		}
	}
	s.lister.kept.Store(pressing)
	s.lister.looked.Store(now.UnixMilli())
	s.c.Revocations.forget(now.Add(-2 * crlLife))
	_, err := s.c.Lists.DropRevocations(ctx, now.Add(-2*crlLife), refreshPage)
	return err
}

// listsOf says which lists a CA has to publish.
func (s *Service) listsOf(a *Authority) (out []ListID) {
	ski := a.SKI()
	switch a.Role {
	case profile.Product:
		out = append(out, ListID{ski, CAList})
	case profile.Operational, profile.Order:
		for i := range s.shards(ski) {
			out = append(out, ListID{ski, i})
		}
	case profile.Root, profile.Infra, profile.IDevID, profile.LDevID, profile.Server, profile.Verdict:
	}
	return out
}

// ListsStanding is how fresh the published lists of a CA are.
type ListsStanding struct {
	Lists int       `json:"lists" doc:"that it publishes, or has to; 0: it names none in its certificates"`
	Stale int       `json:"stale" doc:"of these: never made, or run out"`
	Next  time.Time `json:"next,omitzero" doc:"when the first of the others runs out"`
}

// ListsOf tells how fresh the lists of a CA are: those that it has to publish when its key is here, else those that it has published.
func (s *Service) ListsOf(ctx context.Context, caller access.Caller, ski string) (ListsStanding, error) {
	if err := s.c.Guard.Check(ctx, caller, access.CertRead, access.Resource{Type: "ca"}); err != nil {
		return ListsStanding{}, err
	}
	there, err := s.c.Lists.Lists(ctx, ski)
	if err != nil {
		return ListsStanding{}, err
	}
	var due []ListID
	if a, held := s.c.Held.Get(ski); held {
		due = s.listsOf(a)
	}
	return standingOf(due, there, s.c.Now()), nil
}

// standingOf holds what is there against what is due.
func standingOf(due []ListID, there []List, now time.Time) ListsStanding {
	fresh := map[ListID]bool{} // of those that are due or there
	for _, id := range due {
		fresh[id] = false
	}
	out := ListsStanding{}
	for _, l := range there {
		fresh[l.ListID] = now.Before(l.Next)
		if fresh[l.ListID] && (out.Next.IsZero() || l.Next.Before(out.Next)) {
			out.Next = l.Next
		}
	}
	for _, is := range fresh {
		out.Lists++
		if !is {
			out.Stale++
		}
	}
	return out
}

// keepLists signs what is due of one CA, some at the same time.
func (s *Service) keepLists(ctx context.Context, a *Authority, now time.Time) error {
	ids := s.listsOf(a)
	if len(ids) == 0 {
		return nil
	}
	have, err := s.c.Lists.Lists(ctx, a.SKI())
	if err != nil {
		return err
	}
	by := make(map[ListID]List, len(have))
	for _, l := range have {
		by[l.ListID] = l
	}
	var due []ListID
	for i, id := range ids {
		// Spread over an eighth of a life, so that they are not all due in one moment ever after.
		if l, ok := by[id]; !ok || now.Sub(l.Made) >= crlLife/2-time.Duration(i)*(crlLife/8)/time.Duration(len(ids)) || s.c.Revocations.urgentOf(id) > l.Through {
			due = append(due, id)
		}
	}
	for page := range slices.Chunk(due, listPage) {
		made := make([]List, len(page))
		g := new(errgroup.Group)
		g.SetLimit(max(2, runtime.GOMAXPROCS(0)))
		for i, id := range page {
			g.Go(func() (err error) {
				made[i], err = s.makeList(a, id, by[id], now)
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
		made = slices.DeleteFunc(made, func(l List) bool { return l.DER == nil })
		if err := s.c.Lists.PutLists(ctx, made); err != nil {
			return fmt.Errorf("store lists of CA %s: %w", a.SKI(), err)
		}
	}
	return nil
}

// makeList signs the list that follows old. It gives none while this node knows less than old took account of.
func (s *Service) makeList(a *Authority, id ListID, old List, now time.Time) (List, error) {
	revoked, through := s.c.Revocations.of(id, now)
	if through < old.Through {
		return List{}, nil
	}
	var entries []x509.RevocationListEntry
	for _, e := range revoked {
		// RFC 5280 §3.3: an entry leaves after it was in one list that was made after the certificate's end.
		if e.expires != 0 && !old.Made.IsZero() && e.expires < old.Made.UnixMilli() {
			continue
		}
		entries = append(entries, x509.RevocationListEntry{
			SerialNumber: new(big.Int).SetBytes(e.serial[:]), RevocationTime: time.UnixMilli(e.at).UTC(), ReasonCode: int(e.reason),
		})
	}
	idp, err := issuingPoint(s.listURL(id), id.Shard == CAList)
	if err != nil {
		return List{}, err
	}
	l := List{ListID: id, Number: max(old.Number+1, now.UnixMilli()), Through: through, Made: now, Next: now.Add(crlLife)}
	l.DER, err = x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(l.Number), ThisUpdate: now.Add(-profile.Backdate), NextUpdate: l.Next, RevokedCertificateEntries: entries, ExtraExtensions: idp,
	}, a.Cert, a.key)
	if err != nil {
		return List{}, fmt.Errorf("sign list %s of CA %s: %w", id.File(), id.Issuer, err)
	}
	return l, nil
}

// point is a distributionPointName (RFC 5280 §4.2.1.13) of one address.
type point struct {
	FullName []asn1.RawValue `asn1:"optional,tag:0"`
}

var oidIssuingPoint = asn1.ObjectIdentifier{2, 5, 29, 28}

// issuingPoint is the critical issuingDistributionPoint (RFC 5280 §5.2.5) that keeps one shard from being taken for another. Without an
// address there is nothing to tell lists apart by, and then the list of one shard may not be published as that of its CA: the flag alone is
// left.
func issuingPoint(url string, ofCAs bool) ([]pkix.Extension, error) {
	var p point
	if url != "" {
		p.FullName = []asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(url)}}
	}
	value, err := asn1.Marshal(struct {
		Point point `asn1:"optional,tag:0"`
		Users bool  `asn1:"optional,tag:1"`
		CAs   bool  `asn1:"optional,tag:2"`
	}{p, !ofCAs, ofCAs})
	if err != nil {
		return nil, err
	}
	return []pkix.Extension{{Id: oidIssuingPoint, Critical: true, Value: value}}, nil
}

// putCAList takes in the list of revoked CAs that a CA without a key here has signed: the OEM root's, from a ceremony. It is checked against
// the CA, and must be newer than what there is.
func (s *Service) putCAList(ctx context.Context, ca *x509.Certificate, der []byte) (List, error) {
	l, err := x509.ParseRevocationList(der)
	if err != nil || !bytes.Equal(l.Raw, der) {
		return List{}, fault.Newf(fault.Invalid, "crl.malformed", "no list of revocations: %w", err).With("give a list in DER or PEM")
	}
	if err := l.CheckSignatureFrom(ca); err != nil {
		return List{}, fault.Newf(fault.Denied, "crl.signature", "the list is not of CA %q: %w", ca.Subject, err).With("take the list that this CA signed")
	}
	now := s.c.Now()
	if l.Number == nil || !l.Number.IsInt64() || !now.Before(l.NextUpdate) || l.ThisUpdate.After(now.Add(profile.Backdate)) {
		return List{}, fault.Newf(fault.Invalid, "crl.time", "the list has no number, or is for %s to %s", l.ThisUpdate.Format(time.RFC3339), l.NextUpdate.Format(time.RFC3339)).With("have it made again, with a number and a time in the future")
	}
	id := ListID{hex.EncodeToString(ca.SubjectKeyId), CAList}
	old, err := s.c.Lists.List(ctx, id)
	if err != nil && fault.KindOf(err) != fault.NotFound {
		return List{}, err
	}
	if l.Number.Int64() <= old.Number {
		return List{}, fault.New(fault.Conflict, "crl.number", fmt.Sprintf("the list has number %s, and there is one with %d", l.Number, old.Number), "have one signed with a higher number")
	}
	made := List{ListID: id, Number: l.Number.Int64(), Through: old.Through, Made: now.UTC(), Next: l.NextUpdate, DER: der}
	return made, s.c.Lists.PutLists(ctx, []List{made})
}
