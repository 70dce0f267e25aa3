package est

import (
	"crypto/tls"
	"encoding/base64"
)

// bindings names the line that a request came by, as a challengePassword has it (RFC 7030 §3.5): by tls-unique with TLS 1.2, and by
// tls-exporter (RFC 9266), which is all there is with TLS 1.3. With TLS 1.2 both need extended_master_secret (RFC 7627), without which
// a line can be made to have another's name: crypto/tls exports nothing then, and there is no name.
func bindings(cs *tls.ConnectionState) []string {
	exported, err := cs.ExportKeyingMaterial("EXPORTER-Channel-Binding", []byte{}, 32)
	if err != nil {
		return nil
	}
	out := []string{base64.StdEncoding.EncodeToString(exported)}
	if len(cs.TLSUnique) > 0 {
		out = append(out, base64.StdEncoding.EncodeToString(cs.TLSUnique))
	}
	return out
}
