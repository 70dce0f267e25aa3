package est

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/hallmark-iot/hallmark/agent/peer"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// voucherLabel is the label (RFC 7030 §3.2.2) under which a device without keys shows a voucher.
const voucherLabel = "_rekey/"

// Voucher is what a device shows that has no key to show: HTTP Basic authentication (RFC 7030 §3.2.3), over TLS that the device's own anchors verify.
type Voucher struct {
	Device string
	Secret string
}

// Kit asks what the device was.
func (c *Client) Kit(ctx context.Context, v Voucher) (wire.RecoveryKit, error) {
	b, err := c.show(ctx, v, http.MethodGet, "kit", nil, "application/cbor")
	if err != nil {
		return wire.RecoveryKit{}, err
	}
	k, err := wire.DecodeRecoveryKit(b)
	if err == nil && k.Device != v.Device {
		err = fmt.Errorf("recovery kit: it is of device %s", k.Device)
	}
	return k, err
}

// NewRekeyCSR makes the request (DER) of a device for a new factory identity: key is its new identity key, claim what it says of itself.
func NewRekeyCSR(id idevid.Identity, key crypto.Signer, claim wire.RekeyClaim) ([]byte, error) {
	t, err := idevid.RequestTemplate(id)
	if err != nil {
		return nil, err
	}
	b, err := wire.EncodeRekeyClaim(claim)
	if err != nil {
		return nil, err
	}
	t.ExtraExtensions = append(t.ExtraExtensions, pkix.Extension{Id: wire.OIDRekey(), Value: b})
	return x509.CreateCertificateRequest(rand.Reader, t, key)
}

// Recover asks for the factory identity that csr (of NewRekeyCSR) is for. What comes is one certificate, for that key and device; whether it leads
// to the device's anchors is CheckIdentity's to say.
func (c *Client) Recover(ctx context.Context, v Voucher, csr []byte) (*x509.Certificate, error) {
	b, err := c.show(ctx, v, http.MethodPost, "simpleenroll", []byte(base64.StdEncoding.EncodeToString(csr)), "application/pkcs7-mime")
	if err != nil {
		return nil, err
	}
	certs, err := DecodeCerts(b)
	if err != nil {
		return nil, err
	}
	asked, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, err
	}
	if len(certs) != 1 || !bytes.Equal(certs[0].RawSubjectPublicKeyInfo, asked.RawSubjectPublicKeyInfo) {
		return nil, errors.New("the certificate that came is not one for the key that asked")
	}
	return certs[0], nil
}

// CheckIdentity holds a new factory identity against what the device is, and follows its chain, which it gives leaf first (DER), to the anchors.
func (c *Client) CheckIdentity(leaf *x509.Certificate, want idevid.Identity, issuers [][]byte) ([][]byte, error) {
	got, err := idevid.Parse(leaf)
	if err != nil {
		return nil, err
	}
	if want.Kind = idevid.IDevID; got != want {
		return nil, fmt.Errorf("the certificate that came names %+v, this is %+v", got, want)
	}
	chain, pool, all := [][]byte{leaf.Raw}, x509.NewCertPool(), []*x509.Certificate{leaf}
	for _, der := range issuers {
		ca, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("issuer of the new identity: %w", err)
		}
		chain, all = append(chain, der), append(all, ca)
		pool.AddCert(ca)
	}
	_, err = idevid.HandledSAN(leaf).Verify(x509.VerifyOptions{
		Roots: c.c.Roots, Intermediates: pool, CurrentTime: peer.Since(c.c.Now(), all...), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return nil, fmt.Errorf("the new identity does not lead to the device's anchors: %w", err)
	}
	return chain, nil
}

func (c *Client) show(ctx context.Context, v Voucher, method, name string, body []byte, want string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.c.Timeout)
	defer cancel()
	h, idle := c.line(nil)
	defer idle()
	req, err := http.NewRequestWithContext(ctx, method, c.base+voucherLabel+name, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.SetBasicAuth(v.Device, v.Secret)
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/pkcs10")
		req.Header.Set("Content-Transfer-Encoding", "base64")
	}
	resp, err := h.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }() // read whole already, or given up
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(answer) > maxBody {
		return nil, fmt.Errorf("%s: answer of more than %d bytes", name, maxBody)
	}
	if resp.StatusCode != http.StatusOK {
		text := strings.ToValidUTF8(strings.TrimSpace(string(answer[:min(len(answer), 512)])), "?")
		return nil, &Status{Code: resp.StatusCode, Text: text, After: retryAfter(resp.Header.Get("Retry-After"))}
	}
	if got := resp.Header.Get("Content-Type"); !strings.HasPrefix(got, want) {
		return nil, fmt.Errorf("%s: content type %q", name, got)
	}
	return answer, nil
}
