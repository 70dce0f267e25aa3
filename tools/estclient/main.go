// Command estclient asks an EST server with GlobalSign's client, which shares no code with ours: for tests. Its module is its own, so that
// the product depends on nothing of it.
//
//	estclient HOST:PORT LABEL ANCHOR.pem CERTS.pem KEY.pem KIND CALL
//
// KIND is plain or bare (a request without names); CALL is cacerts, csrattrs, enroll, reenroll or keygen. What came is told in one line, and
// a certificate written as out.pem, a key as out.key, in the working directory.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/globalsign/est"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "estclient:", err)
		os.Exit(1)
	}
}

func blocks(path string) (out [][]byte, err error) {
	data, err := os.ReadFile(path)
	for {
		var b *pem.Block
		if b, data = pem.Decode(data); b == nil {
			return out, err
		}
		out = append(out, b.Bytes)
	}
}

func run(args []string) error {
	if len(args) != 7 {
		return errors.New("want HOST:PORT LABEL ANCHOR CERTS KEY KIND CALL")
	}
	c := est.Client{Host: args[0], AdditionalPathSegment: args[1], ExplicitAnchor: x509.NewCertPool()}
	anchors, err := blocks(args[2])
	if err != nil {
		return err
	}
	for _, der := range anchors {
		a, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		c.ExplicitAnchor.AddCert(a)
	}
	chain, err := blocks(args[3])
	if err != nil {
		return err
	}
	for _, der := range chain {
		one, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		c.Certificates = append(c.Certificates, one)
	}
	keys, err := blocks(args[4])
	if err != nil || len(keys) != 1 {
		return errors.Join(errors.New("no key"), err)
	}
	if c.PrivateKey, err = x509.ParsePKCS8PrivateKey(keys[0]); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return told(call(ctx, c, args[6], args[5] == "bare"))
}

// told says what a server that does not give a certificate says.
func told(err error) error {
	var e est.Error
	if errors.As(err, &e) {
		fmt.Printf("status %d, retry after %d: %v\n", e.StatusCode(), e.RetryAfter(), e)
		return nil
	}
	return err
}

func call(ctx context.Context, c est.Client, name string, bare bool) error {
	switch name {
	case "cacerts":
		certs, err := c.CACerts(ctx)
		for _, one := range certs {
			fmt.Println("CA", one.Subject)
		}
		return err
	case "csrattrs":
		attrs, err := c.CSRAttrs(ctx)
		for _, oid := range attrs.OIDs {
			fmt.Println("oid", oid)
		}
		for _, a := range attrs.Attributes {
			fmt.Println("attribute", a.Type, len(a.Values))
		}
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	tmpl := &x509.CertificateRequest{}
	if !bare {
		tmpl.RawSubject = c.Certificates[0].RawSubject
		for _, e := range c.Certificates[0].Extensions {
			if e.Id.String() == "2.5.29.17" {
				tmpl.ExtraExtensions = append(tmpl.ExtraExtensions, e)
			}
		}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, tmpl, key)
	if err != nil {
		return err
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	var cert *x509.Certificate
	switch name {
	case "enroll":
		cert, err = c.Enroll(ctx, csr)
	case "reenroll":
		cert, err = c.Reenroll(ctx, csr)
	case "keygen":
		cert, pkcs8, err = c.ServerKeyGen(ctx, csr)
	default:
		return fmt.Errorf("no call %q", name)
	}
	if err != nil {
		return err
	}
	fmt.Println("certificate", cert.Subject, "of", cert.Issuer)
	return errors.Join(
		os.WriteFile("out.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}), 0o600),
		os.WriteFile("out.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600),
	)
}
