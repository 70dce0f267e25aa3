// Package profile is every kind of certificate that is made here, as data, and the lint that holds a certificate to its own.
//
// Stage 2, birth, and all later ones. It guarantees that what is signed is what the table says: the template is looked at before the signature, and the bytes after it. It trusts
// nobody: no key, no store and no clock is here.
package profile

import (
	"crypto/x509"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// Role is what a certificate is for. It decides everything in it but names, key and time.
type Role string

// The roles: CAs first, in the order of the hierarchy.
const (
	Root        Role = "root"
	Product     Role = "product"
	Order       Role = "order"
	Operational Role = "operational"
	Infra       Role = "infra"
	IDevID      Role = "idevid"
	LDevID      Role = "ldevid"
	Server      Role = "server"
	Verdict     Role = "verdict"
)

// Policies that name the roles beside the two of package idevid. They are UUIDs under 2.25 (X.667). No
// certificate is made for an operator; the infrastructure CAs that there are have the policy, and a profile is what they are held to.
const (
	oidOperator = "2.25.167220276490353515837251553509781489679"
	oidServer   = "2.25.88181947125876542225777665440525250992"
)

// Profile is one kind of certificate, as data.
type Profile struct {
	Role     Role
	Issuer   Role // whose CA signs it; a root signs itself
	CA       bool
	PathLen  int // of a CA; 0 means that it issues no CAs
	KeyUsage x509.KeyUsage
	EKU      []x509.ExtKeyUsage // on a CA: all that may stand below it
	Policies []x509.OID         // certificate policies; on a CA: those of what it issues
	Life     time.Duration      // default and at most; 0: no expiry (99991231235959Z)
	Why      string
}

// Names reports whether c has just the profile's policies, in their order.
func (p Profile) Names(c *x509.Certificate) bool {
	return slices.EqualFunc(c.Policies, p.Policies, x509.OID.Equal)
}

// Backdate forgives the clock of a device that runs a little behind: a certificate is valid from so long before it is made.
const Backdate = 5 * time.Minute

const day = 24 * time.Hour

// profiles is the table, made once: every signature and every verification looks into it.
var profiles = table()

// parsed reads a policy's name, which is a constant.
func parsed(s string) x509.OID {
	oid, err := x509.ParseOID(s)
	if err != nil {
		panic("profile: policy " + s + ": " + err.Error())
	}
	return oid
}

func table() []Profile {
	caUse := x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	client := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	idev, ldev := []x509.OID{idevid.PolicyIDevID()}, []x509.OID{idevid.PolicyLDevID()}
	return []Profile{
		{Role: Root, Issuer: Root, CA: true, PathLen: 2, KeyUsage: caUse, Why: "the OEM's anchor; offline; outlives what it vouches for"},
		{
			Role: Product, Issuer: Root, CA: true, PathLen: 1, KeyUsage: caUse, EKU: client, Policies: idev,
			Why: "one per product; no expiry because IDevIDs have none (IEEE 802.1AR §8.7)",
		},
		{
			Role: Order, Issuer: Product, CA: true, PathLen: 0, KeyUsage: caUse, EKU: client, Policies: idev,
			Why: "one per order and station; its key leaves the house wrapped and is destroyed at close; client use only, so that a thief makes no servers",
		},
		{
			Role: Operational, Issuer: Root, CA: true, PathLen: 0, KeyUsage: caUse, EKU: client, Policies: ldev, Life: 10 * 366 * day,
			Why: "online; signs what devices use every day",
		},
		{
			Role: Infra, Issuer: Root, CA: true, PathLen: 0, KeyUsage: caUse, Policies: []x509.OID{parsed(oidServer), parsed(oidOperator)}, Life: 10 * 366 * day,
			EKU: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, Why: "servers and verdicts; no device",
		},
		{
			Role: IDevID, Issuer: Order, KeyUsage: x509.KeyUsageDigitalSignature, Policies: idev,
			Why: "the identity from the factory (IEEE 802.1AR); may only enrol",
		},
		{
			Role: LDevID, Issuer: Operational, KeyUsage: x509.KeyUsageDigitalSignature, EKU: client, Policies: ldev, Life: 90 * day,
			Why: "the working identity; days to weeks, so that forgetting to revoke heals",
		},
		{
			Role: Server, Issuer: Infra, KeyUsage: x509.KeyUsageDigitalSignature, Policies: []x509.OID{parsed(oidServer)}, Life: 398 * day,
			EKU: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, Why: "TLS server",
		},
		{
			Role: Verdict, Issuer: Infra, KeyUsage: x509.KeyUsageDigitalSignature, Policies: []x509.OID{wire.VerdictPolicy()}, Life: 398 * day,
			Why: "signs verdicts of genuineness for anybody; has no name to serve under, and is no device",
		},
	}
}

// All gives the table.
func All() []Profile { return slices.Clone(profiles) }

// Of gives the profile of role.
func Of(role Role) (Profile, bool) {
	for _, p := range profiles {
		if p.Role == role {
			return p, true
		}
	}
	return Profile{}, false
}
