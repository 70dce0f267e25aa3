package fleet

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/fxamacker/cbor/v2"
)

// Show gives a fact's data as text, and says what form it has. It never fails: what it cannot read it gives in hex.
func Show(data []byte) (form, text string) {
	if len(data) == 0 {
		return "None.", ""
	}
	if json.Valid(data) {
		return "JSON", string(data)
	}
	if c, err := x509.ParseCertificate(data); err == nil {
		return "Certificate (DER)", fmt.Sprintf("subject  %s\nissuer   %s\nserial   %x\nfrom     %s\nuntil    %s\nkey      %s\n\n%x",
			c.Subject, c.Issuer, c.SerialNumber, c.NotBefore.UTC(), c.NotAfter.UTC(), c.PublicKeyAlgorithm, data)
	}
	form, payload := "CBOR", data
	var message cbor.RawTag
	var parts []cbor.RawMessage
	if cbor.Unmarshal(data, &message) == nil && cbor.Unmarshal(message.Content, &parts) == nil && len(parts) == 4 {
		var inner []byte
		if cbor.Unmarshal(parts[2], &inner) == nil && len(inner) > 0 {
			form, payload = "Payload of a signed message (COSE, tag "+strconv.FormatUint(message.Number, 10)+"), in CBOR diagnostic notation", inner
		}
	}
	if text, err := cbor.Diagnose(payload); err == nil {
		return form, text
	}
	return fmt.Sprintf("%d bytes", len(data)), hex.EncodeToString(data)
}
