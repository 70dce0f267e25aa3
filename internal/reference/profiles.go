package main

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/pki/profile"
)

// profiles is every kind of certificate, as pki has it: what a profile fixes, the issuer's request cannot change.
func profiles(_ string, w *bytes.Buffer) error {
	head(w, "Certificate profiles", "What a certificate of each role holds. Lint refuses to sign, or to let leave, what differs in anything. Names, key and time are "+
		"the request's, as far as the profile lets them be; keys are P-256 or P-384, and the signature has the hash of the issuer's curve.")
	fmt.Fprintf(w, "| role | signed by | CA | key usage | extended | life, at most | what for |\n|---|---|---|---|---|---|---|\n")
	for _, p := range profile.All() {
		ca, life := "-", "without end (99991231235959Z)"
		if p.CA {
			ca = fmt.Sprintf("path length %d", p.PathLen)
		}
		if p.Life != 0 {
			life = fmt.Sprintf("%d days", p.Life/(24*time.Hour))
		}
		fmt.Fprintf(w, "| `%s` | `%s` | %s | %s | %s | %s | %s |\n", p.Role, p.Issuer, ca, usages(p.KeyUsage), extended(p.EKU), life, cell(p.Why))
	}
	fmt.Fprintf(w, "\n## Policies\n\nA certificate names what it is by its policy; a CA names what it may issue. They are UUIDs under 2.25 (X.667).\n\n| role | policies |\n|---|---|\n")
	for _, p := range profile.All() {
		if len(p.Policies) > 0 {
			names := make([]string, len(p.Policies))
			for i, oid := range p.Policies {
				names[i] = oid.String()
			}
			fmt.Fprintf(w, "| `%s` | %s |\n", p.Role, strings.Join(names, "<br>"))
		}
	}
	return nil
}

func usages(u x509.KeyUsage) string {
	var out []string
	for _, one := range []struct {
		bit  x509.KeyUsage
		name string
	}{{x509.KeyUsageDigitalSignature, "digitalSignature"}, {x509.KeyUsageCertSign, "keyCertSign"}, {x509.KeyUsageCRLSign, "cRLSign"}} {
		if u&one.bit != 0 {
			out, u = append(out, one.name), u&^one.bit
		}
	}
	if u != 0 {
		out = append(out, fmt.Sprintf("%#x", int(u)))
	}
	return strings.Join(out, ", ")
}

func extended(eku []x509.ExtKeyUsage) string {
	names := map[x509.ExtKeyUsage]string{
		x509.ExtKeyUsageClientAuth: "clientAuth", x509.ExtKeyUsageServerAuth: "serverAuth", x509.ExtKeyUsageOCSPSigning: "OCSPSigning",
	}
	out := []string{}
	for _, u := range eku {
		name, ok := names[u]
		if !ok {
			name = fmt.Sprintf("%d", u)
		}
		out = append(out, name)
	}
	if len(out) == 0 {
		return "-"
	}
	return strings.Join(out, ", ")
}
