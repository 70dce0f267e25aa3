package server

import (
	"crypto/tls"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/internal/keys/soft"
	"github.com/hallmark-iot/hallmark/product"
)

// What is recorded on a device's line today is not opened by a quantum computer tomorrow: the key exchange is a hybrid. Its signatures are ECDSA.
func TestDevicesAgreeOnKeysThatStaySecret(t *testing.T) {
	cfg := DefaultConfig()
	cfg.API, cfg.Devices, cfg.Virtual = "127.0.0.1:0", "127.0.0.1:0", true
	l := Layout{Dir: filepath.Join(t.TempDir(), "one")}
	online, err := soft.Create(l.Keys(), "pass", 1000)
	if err != nil {
		t.Fatal(err)
	}
	offline, err := soft.Create(l.Offline(), "pass", 1000)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Init(t.Context(), l, InitOptions{
		Config: cfg, Approvers: []string{"a", "b", "c"}, Threshold: 2, Online: online, Offline: offline, Now: time.Now().UTC(),
		Product: product.Product{
			ID: "pump", OEM: cfg.OEM, Name: "Pump", Hardware: []string{"A"}, Model: "blob", Suite: "HM-P256-1", EndOfSupport: time.Now().AddDate(5, 0, 0),
		},
	}); err != nil {
		t.Fatal(err)
	}
	_, devices := runNode(t, l)
	for name, c := range map[string]struct {
		offers []tls.CurveID
		want   tls.CurveID
	}{
		"an agent, which says nothing":  {nil, tls.X25519MLKEM768},
		"a client that knows only P256": {[]tls.CurveID{tls.CurveP256}, tls.CurveP256},
	} {
		d := tls.Dialer{Config: &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, CurvePreferences: c.offers}} // only what is agreed on is looked at
		conn, err := d.DialContext(t.Context(), "tcp", strings.TrimPrefix(devices, "https://"))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := conn.(*tls.Conn).ConnectionState().CurveID; got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
}
