package mender

import (
	"bytes"
	"cmp"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/onboard/legacy"
)

// auth is a client's request to be let in:
//
//	{"id_data": "{\"mac\":\"02:00:00:00:00:01\"}", "tenant_token": product, "pubkey": PEM}
//
// The signature over it, all of its bytes, is in the header X-MEN-Signature.
type auth struct {
	IDData  string `json:"id_data"`
	Product string `json:"tenant_token"`
	Key     string `json:"pubkey"`

	name   string // what it is called here
	key    any
	digest []byte // of the key
}

// Bounds of an RSA key, bits: shorter ones are weak, and longer ones keep the server busy.
const (
	minRSA = 2048
	maxRSA = 4096
)

func decodeAuth(data []byte) (a auth, err error) {
	if err := json.Unmarshal(data, &a); err != nil {
		return a, err
	}
	if a.Product = strings.TrimSpace(a.Product); a.Product == "" {
		return a, errors.New("no tenant_token: the client's configuration needs TenantToken, which is the product's ID")
	}
	if a.name, err = nameOf(a.IDData); err != nil {
		return a, fmt.Errorf("id_data: %w", err)
	}
	block, _ := pem.Decode([]byte(a.Key))
	if block == nil || block.Type != "PUBLIC KEY" {
		return a, errors.New("pubkey: want PEM of a PUBLIC KEY")
	}
	if a.key, err = x509.ParsePKIXPublicKey(block.Bytes); err != nil {
		return a, fmt.Errorf("pubkey: %w", err)
	}
	if k, ok := a.key.(*rsa.PublicKey); ok && (k.N.BitLen() < minRSA || k.N.BitLen() > maxRSA) {
		return a, fmt.Errorf("pubkey: RSA of %d bits: want %d to %d", k.N.BitLen(), minRSA, maxRSA)
	}
	der, err := x509.MarshalPKIXPublicKey(a.key)
	if err != nil {
		return a, fmt.Errorf("pubkey: %w", err)
	}
	sum := sha256.Sum256(der)
	a.digest = sum[:]
	return a, nil
}

// verify reports whether the key in the request has signed it: SHA-256 with RSA (PKCS #1 v1.5) or ECDSA, or Ed25519.
func (a auth) verify(data []byte, signature string) error {
	sig, err := base64.StdEncoding.DecodeString(signature)
	if err != nil || len(sig) == 0 {
		return errors.New("no signature in X-MEN-Signature")
	}
	var how x509.SignatureAlgorithm
	switch a.key.(type) {
	case *rsa.PublicKey:
		how = x509.SHA256WithRSA
	case *ecdsa.PublicKey:
		how = x509.ECDSAWithSHA256
	case ed25519.PublicKey:
		how = x509.PureEd25519
	default:
		return fmt.Errorf("no signature by a key of type %T is understood", a.key)
	}
	return (&x509.Certificate{PublicKey: a.key}).CheckSignature(how, data, sig)
}

// nameOf writes an identity as a name: its members in order, key=value, with a comma between. Two identities have two names.
func nameOf(identity string) (string, error) {
	var members map[string]any
	d := json.NewDecoder(strings.NewReader(identity))
	d.UseNumber()
	if err := d.Decode(&members); err != nil {
		return "", err
	}
	if _, err := d.Token(); err == nil {
		return "", errors.New("something behind the identity")
	}
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(members)) {
		values, ok := members[k].([]any)
		if !ok {
			values = []any{members[k]}
		}
		for _, v := range values {
			switch v.(type) {
			case string, json.Number:
			default:
				return "", fmt.Errorf("member %.40q is neither text nor number, nor a list of such", k)
			}
			parts = append(parts, escape(k)+"="+escape(fmt.Sprint(v)))
		}
	}
	name := strings.Join(parts, ",")
	return name, legacy.CheckName(name)
}

// escape writes what would make another name of it, or none, as in addresses.
func escape(text string) string {
	var b strings.Builder
	for i := range len(text) {
		if c := text[i]; c <= ' ' || c == '%' || c == ',' || c == '=' || c == '/' || c >= 0x7f {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// decodeProvides reads which artifact a client runs: {"device_provides": {"artifact_name": …}} (v2), or its members alone (v1).
func decodeProvides(data []byte) (artifact string, err error) {
	type provides struct {
		Name string `json:"artifact_name"`
	}
	var in struct {
		provides
		Device *provides `json:"device_provides"`
	}
	if err := json.Unmarshal(data, &in); err != nil {
		return "", err
	}
	if in.Device != nil {
		return in.Device.Name, nil
	}
	return in.Name, nil
}

// status is what became of a deployment: {"status": …, "substate": …}.
type status struct {
	Status   string `json:"status"`
	Substate string `json:"substate"`
}

func decodeStatus(data []byte) (s status, err error) {
	if err := json.Unmarshal(data, &s); err != nil {
		return s, err
	}
	switch s.Status {
	case "downloading", "installing", "rebooting", "success", "failure", "already-installed", "pause_before_installing", "pause_before_rebooting", "pause_before_committing":
		return s, nil
	}
	return s, fmt.Errorf("status %.30q is not known", s.Status)
}

// said is what the status means.
func (s status) said() device.Said {
	switch s.Status {
	case "success", "already-installed":
		return device.Succeeded
	case "failure":
		return device.Failing
	}
	return device.Working
}

// text is what people are shown.
func (s status) text() string {
	text := s.Status
	if s.Substate != "" {
		text += ": " + s.Substate
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
}

// decodeLog reads what a client wrote of a deployment, and keeps the end of what is too much: {"messages": [{"timestamp": …, "level": …, "message": …}]}. It holds no more at once than is kept, and one message.
func decodeLog(r io.Reader) (out []legacy.Message, err error) {
	d := json.NewDecoder(r)
	if err := opens(d, '{'); err != nil {
		return nil, err
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, err
		}
		if name != "messages" {
			var skipped json.RawMessage
			if err := d.Decode(&skipped); err != nil {
				return nil, err
			}
			continue
		}
		if out, err = decodeMessages(d); err != nil {
			return nil, err
		}
	}
	if _, err := d.Token(); err != nil { // the brace that closes it
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, cmp.Or(err, errors.New("something behind the log"))
	}
	if out == nil {
		return nil, errors.New("it has no messages")
	}
	return out, nil
}

func decodeMessages(d *json.Decoder) ([]legacy.Message, error) {
	if err := opens(d, '['); err != nil {
		return nil, err
	}
	out, size := []legacy.Message{}, 0
	for d.More() {
		var in struct {
			At    string `json:"timestamp"`
			Level string `json:"level"`
			Text  string `json:"message"`
		}
		if err := d.Decode(&in); err != nil {
			return nil, err
		}
		m := legacy.Message{At: in.At, Level: in.Level, Text: in.Text}
		out, size = append(out, m), size+m.Size()
		for size > legacy.MaxLog {
			out, size = out[1:], size-out[0].Size()
		}
	}
	_, err := d.Token()
	return out, err
}

// opens reads the bracket that a list or an object begins with.
func opens(d *json.Decoder, want json.Delim) error {
	got, err := d.Token()
	if err == nil && got != want {
		err = fmt.Errorf("%v where %v belongs", got, want)
	}
	return err
}

// decodeInventory reads what a client says of itself: [{"name": …, "value": text | [text, …]}]. Long values are cut: they are looked at, and not compared.
func decodeInventory(data []byte) (map[string]string, error) {
	var in []struct {
		Name  string          `json:"name"`
		Value json.RawMessage `json:"value"`
	}
	if err := json.Unmarshal(data, &in); err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, a := range in {
		var many []string
		text := ""
		switch {
		case json.Unmarshal(a.Value, &text) == nil:
		case json.Unmarshal(a.Value, &many) == nil:
			text = strings.Join(many, ",")
		default:
			text = string(bytes.TrimSpace(a.Value))
		}
		if len(text) > legacy.MaxAttribute {
			text = strings.ToValidUTF8(text[:legacy.MaxAttribute-len("…")], "") + "…"
		}
		out[a.Name] = text
	}
	return out, nil
}
