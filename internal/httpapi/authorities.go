package httpapi

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/profile"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// Issuer is a CA of the hierarchy, or one that was asked for.
type Issuer struct {
	ID        string       `json:"id" doc:"subject key ID, hex; of one that was asked for, its key's name"`
	Role      profile.Role `json:"role"`
	Product   string       `json:"product,omitempty" doc:"the product that it is for; left out: all"`
	DER       []byte       `json:"der,omitempty"`
	State     string       `json:"state" enum:"issuing,held,trusted,requested,ended,revoked" doc:"issuing: it signs what is new; held: its key is here, for its lists; trusted: its key is elsewhere; requested: asked for, without an answer; ended: taken out of service"`
	NotBefore time.Time    `json:"not_before,omitzero"`
	NotAfter  time.Time    `json:"not_after,omitzero"`
	Unit      string       `json:"unit,omitempty"`
	Requested time.Time    `json:"requested,omitzero"`
}

// AuthorityRequest asks for a new CA.
type AuthorityRequest struct {
	Role    string `json:"role" enum:"product,operational,infra"`
	Product string `json:"product,omitempty" maxLength:"64" doc:"of a product CA, and of no other"`
	Unit    string `json:"unit,omitempty" maxLength:"48" doc:"tells CAs of one role apart: 2027"`
	Days    uint   `json:"days,omitempty" maximum:"14640" doc:"life asked for; left out: what the role's profile has"`
	Purpose string `json:"purpose" minLength:"1" maxLength:"512" doc:"why, for the people at the ceremony"`
}

// Requested is a request for the ceremony.
type Requested struct {
	Request []byte `json:"request" doc:"of a CA: the signed request (COSE_Sign1); of a list: its content (CBOR)"`
	Digest  []byte `json:"digest" doc:"SHA-256 of what is asked for, for people to compare at the ceremony"`
}

// Answer is what a ceremony gave out.
type Answer struct {
	Content []byte `json:"content" minLength:"1" maxLength:"1048576" doc:"a grant (CBOR), a root certificate (DER), or a list of revocations (DER)"`
}

// ListAsked says why a list of revoked CAs is asked for.
type ListAsked struct {
	Purpose string `json:"purpose" minLength:"1" maxLength:"512" doc:"why, for the people at the ceremony"`
}

// PublishedList is a list that was taken in.
type PublishedList struct {
	Number int64     `json:"number"`
	Next   time.Time `json:"next" doc:"when it has to be replaced"`
}

// BulkRevocation names devices and certificates that are to be revoked for one reason.
type BulkRevocation struct {
	Devices      []string `json:"devices,omitempty" maxItems:"20000" doc:"each with every identity it has, for good"`
	Certificates []string `json:"certificates,omitempty" maxItems:"20000" doc:"ISSUER/SERIAL, as list-device-certificates gives them"`
	Code         int      `json:"reason_code" enum:"0,1,2,3,4,5,9,10" doc:"RFC 5280 §5.3.1"`
	Dry          bool     `json:"dry_run,omitempty" doc:"only count"`
}

// registerAuthorities has the operations on CAs, and revocation in bulk.
func (a *api) registerAuthorities(h huma.API) {
	huma.Register(h, op("list-issuers", http.MethodGet, "/issuers", "List the certification authorities"),
		func(ctx context.Context, in *struct{ Paging }) (*body[Page[Issuer]], error) {
			id := func(i Issuer) string { return i.ID }
			return paged(a, ctx, in.Paging, id, func(after string, limit int) ([]Issuer, error) {
				all, err := a.issuers(ctx)
				return cut(all, id, after, limit), err
			})
		})
	huma.Register(h, op("get-issuer-lists", http.MethodGet, "/issuers/{id}/lists", "Show how fresh the lists are that say what an authority has revoked"),
		func(ctx context.Context, in *struct {
			ID string `path:"id" pattern:"^[0-9a-f]{1,128}$"`
		},
		) (*body[pki.ListsStanding], error) {
			l, err := a.PKI.ListsOf(ctx, callerOf(ctx), in.ID)
			return reply(a, ctx, l, err)
		})
	huma.Register(h, op("request-issuer", http.MethodPost, "/issuers/requests", "Make the key of a new certification authority, and the request for the ceremony"),
		func(ctx context.Context, in *struct{ Body AuthorityRequest }) (*body[Requested], error) {
			b := in.Body
			envelope, err := a.PKI.RequestCA(ctx, callerOf(ctx), wire.CARequest{Role: b.Role, Product: b.Product, Unit: b.Unit, Days: b.Days, Purpose: b.Purpose})
			if err != nil {
				return nil, a.problem(ctx, err)
			}
			_, payload, err := wire.OpenCARequest(envelope)
			return reply(a, ctx, requested(envelope, payload), err)
		})
	huma.Register(h, op("install-issuer", http.MethodPost, "/issuers/install", "Take in the ceremony's answer: the new authority takes over"),
		func(ctx context.Context, in *struct{ Body Answer }) (*body[Issuer], error) {
			ca, err := a.PKI.InstallCA(ctx, callerOf(ctx), in.Body.Content)
			return reply(a, ctx, Issuer{ID: ca.SKI, Role: ca.Role, DER: ca.DER, State: "issuing"}, err)
		})
	huma.Register(h, op("trust-root", http.MethodPost, "/issuers/trust", "Believe another root of the OEM"),
		func(ctx context.Context, in *struct{ Body Answer }) (*body[Issuer], error) {
			ca, err := a.PKI.TrustRoot(ctx, callerOf(ctx), in.Body.Content)
			return reply(a, ctx, Issuer{ID: ca.SKI, Role: ca.Role, DER: ca.DER, State: "trusted"}, err)
		})
	huma.Register(h, op("request-issuer-list", http.MethodPost, "/issuers/{id}/list-request", "Write what a root has to sign: the list of the authorities below it that were revoked"),
		func(ctx context.Context, in *struct {
			ID   string `path:"id" pattern:"^[0-9a-f]{1,128}$"`
			Body ListAsked
		},
		) (*body[Requested], error) {
			out, err := a.PKI.RequestCAList(ctx, callerOf(ctx), in.ID, in.Body.Purpose)
			return reply(a, ctx, requested(out, out), err)
		})
	huma.Register(h, op("put-issuer-list", http.MethodPost, "/issuers/{id}/list", "Publish the list that a root has signed"),
		func(ctx context.Context, in *struct {
			ID   string `path:"id" pattern:"^[0-9a-f]{1,128}$"`
			Body Answer
		},
		) (*body[PublishedList], error) {
			l, err := a.PKI.PutCAList(ctx, callerOf(ctx), in.ID, in.Body.Content)
			return reply(a, ctx, PublishedList{Number: l.Number, Next: l.Next}, err)
		})
	huma.Register(h, op("revoke-many", http.MethodPost, "/revocations", "Revoke a list of devices and certificates"),
		func(ctx context.Context, in *struct{ Body BulkRevocation }) (*body[pki.BulkDone], error) {
			b := in.Body
			done, err := a.PKI.RevokeMany(ctx, callerOf(ctx), pki.Bulk{Devices: b.Devices, Certificates: b.Certificates, Reason: b.Code}, b.Dry)
			return reply(a, ctx, done, err)
		})
}

func requested(request, payload []byte) Requested {
	sum := sha256.Sum256(payload)
	return Requested{Request: request, Digest: sum[:]}
}

func (a *api) issuers(ctx context.Context) ([]Issuer, error) {
	cas, asked, err := a.PKI.Authorities(ctx, callerOf(ctx))
	if err != nil {
		return nil, err
	}
	var out []Issuer
	for _, ca := range cas {
		out = append(out, issuerOf(ca))
	}
	for _, r := range asked {
		out = append(out, Issuer{ID: r.Key, Role: r.Role, Product: r.Product, Unit: r.Unit, State: "requested", Requested: r.At})
	}
	slices.SortFunc(out, func(x, y Issuer) int { return strings.Compare(x.ID, y.ID) })
	return out, nil
}

func issuerOf(ca pki.Standing) Issuer {
	i := Issuer{ID: ca.SKI, Role: ca.Role, DER: ca.DER, NotBefore: ca.Cert.NotBefore, NotAfter: ca.Cert.NotAfter, State: "trusted"}
	_, i.Product = idevid.SubjectOEM(ca.Cert)
	i.Unit = unitOf(ca.Cert, ca.Role)
	switch {
	case ca.Revoked:
		i.State = "revoked"
	case !ca.Ended.IsZero():
		i.State = "ended"
	case ca.Issuing:
		i.State = "issuing"
	case ca.Held:
		i.State = "held"
	}
	return i
}

// unitOf reads from a CA's name what tells it apart from others of its role.
func unitOf(c *x509.Certificate, role profile.Role) string {
	return strings.TrimSpace(strings.TrimPrefix(c.Subject.CommonName, string(role)))
}
