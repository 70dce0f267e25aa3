package mender_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/legacytest"
	"github.com/hallmark-iot/hallmark/onboard/legacy"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/mender"
)

const api = "/api/devices/v1/"

// played is a client as the protocol has it, which says whatever a test wants.
type played struct {
	w    *legacytest.World
	key  crypto.Signer
	name string
	auth string
}

func newPlayed(w *legacytest.World, key crypto.Signer, serial string) *played {
	return &played{w: w, key: key, name: "serial=" + serial}
}

func (p *played) spki() []byte {
	der, err := x509.MarshalPKIXPublicKey(p.key.Public())
	p.w.Must(err)
	return der
}

func (p *played) digest() []byte {
	sum := sha256.Sum256(p.spki())
	return sum[:]
}

func (p *played) request(product string) []byte {
	_, serial, _ := strings.Cut(p.name, "=")
	data, err := json.Marshal(map[string]string{
		"id_data": fmt.Sprintf(`{"serial":%q}`, serial), "tenant_token": product, "pubkey": string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: p.spki()})),
	})
	p.w.Must(err)
	return append(data, '\n')
}

func (p *played) sign(data []byte) string {
	sum, how := sha256.Sum256(data), crypto.SHA256
	message := sum[:]
	if _, ok := p.key.(ed25519.PrivateKey); ok {
		message, how = data, 0
	}
	sig, err := p.key.Sign(rand.Reader, message, how)
	p.w.Must(err)
	return base64.StdEncoding.EncodeToString(sig)
}

// asks asks to be let in.
func (p *played) asks() int {
	data := p.request(legacytest.Tenant)
	status, token, _ := p.w.Call(http.MethodPost, api+"authentication/auth_requests", "", string(data), "X-MEN-Signature", p.sign(data))
	if status == http.StatusOK {
		p.auth = "Bearer " + string(token)
	}
	return status
}

func (p *played) admitted() (id string) {
	p.w.T.Helper()
	id, _ = p.w.Admit(legacy.Admission{Kind: legacy.Mender, Name: p.name, Key: p.digest()})
	if status := p.asks(); status != http.StatusOK {
		p.w.T.Fatalf("whom a person let in is answered %d", status)
	}
	return id
}

// next asks what there is to do, having said what it runs.
func (p *played) next(artifact string) (status int, id, uri string) {
	p.w.T.Helper()
	status, body, _ := p.w.Call(http.MethodPost, "/api/devices/v2/deployments/device/deployments/next", p.auth, `{"device_provides":{"artifact_name":"`+artifact+`","device_type":"board"},"update_control_map":true}`)
	var d struct {
		ID       string
		Artifact struct {
			Source struct{ URI string }
		}
	}
	if status == http.StatusOK {
		p.w.Must(json.Unmarshal(body, &d))
	}
	return status, d.ID, strings.TrimPrefix(d.Artifact.Source.URI, p.w.Base)
}

func (p *played) offered(artifact string) (id, uri string) {
	p.w.T.Helper()
	p.w.Until("it is offered something", func() (bool, string) {
		var status int
		status, id, uri = p.next(artifact)
		return status == http.StatusOK, fmt.Sprint(status)
	})
	return id, uri
}

func (p *played) says(id, status string) int {
	got, _, _ := p.w.Call(http.MethodPut, api+"deployments/device/deployments/"+id+"/status", p.auth, `{"status":"`+status+`"}`+"\n")
	return got
}

func artifact(t testing.TB, name string, payload []byte) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	version := name[strings.LastIndex(name, "-")+1:]
	if err := mender.Write(&out, mender.Options{Name: name, Version: version, DeviceTypes: []string{"A"}, Type: "app", File: "app"}, key, bytes.NewReader(payload)); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func p256(t testing.TB) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestWhoIsLetIn(t *testing.T) {
	w := legacytest.Behind(t, &legacytest.Line{})
	long, err := rsa.GenerateKey(rand.Reader, 3072)
	w.Must(err)
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	w.Must(err)
	for i, key := range []crypto.Signer{long, p256(t), edwards} {
		p := newPlayed(w, key, fmt.Sprint(i))
		if status := p.asks(); status != http.StatusUnauthorized {
			t.Fatalf("%T: a stranger is answered %d", key, status)
		}
		p.admitted()
		if status, _, _ := p.next("pump-1.0.0"); status != http.StatusNoContent {
			t.Errorf("%T: it is answered %d", key, status)
		}
		if status, _, _ := w.Call(http.MethodGet, api+"deployments/device/deployments/next?artifact_name=pump-1.0.0&device_type=A", p.auth, ""); status != http.StatusNoContent {
			t.Errorf("%T, in the words of version 1: %d", key, status)
		}
	}

	p := newPlayed(w, p256(t), "9")
	data := p.request(legacytest.Tenant)
	thief := newPlayed(w, p256(t), "9")
	for what, x := range map[string]struct {
		body, signature string
		status          int
	}{
		"not signed":              {string(data), "", 401},
		"signed without its end":  {string(data), p.sign(bytes.TrimSpace(data)), 401},
		"signed by another":       {string(data), thief.sign(data), 401},
		"of no product":           {string(p.request("")), p.sign(p.request("")), 422},
		"of another product":      {string(p.request("else")), p.sign(p.request("else")), 401},
		"nothing":                 {"", p.sign(nil), 422},
		"too much":                {strings.Repeat("x", 1<<17), "", 413},
		"with a key that is none": {`{"id_data":"{\"serial\":\"9\"}","tenant_token":"pump","pubkey":"x"}`, "", 422},
	} {
		if status, _, _ := w.Call(http.MethodPost, api+"authentication/auth_requests", "", x.body, "X-MEN-Signature", x.signature); status != x.status {
			t.Errorf("a request %s: %d, want %d", what, status, x.status)
		}
	}
	waiting, err := w.People["olga"].LegacyClients(t.Context(), legacytest.Tenant, legacy.Pending)
	w.Must(err)
	if len(waiting) != 0 {
		t.Errorf("there wait %+v, of whom nobody has shown a key", waiting)
	}
	if _, err := w.People["frank"].AdmitLegacyClient(t.Context(), legacytest.Tenant, legacy.Admission{Kind: legacy.Mender, Name: p.name}); err == nil {
		t.Error("a client of Mender's was let in without a key")
	}
	p.admitted()
	if status := thief.asks(); status != http.StatusUnauthorized {
		t.Errorf("who says that it is another is answered %d", status)
	}
	first := p.auth
	if p.asks() != http.StatusOK || p.auth == first {
		t.Fatal("it got the same token again")
	}
	second := p.auth
	for _, auth := range []string{first, "", "Bearer ", "Bearer x", "TargetToken " + strings.TrimPrefix(second, "Bearer ")} {
		p.auth = auth
		if status, _, _ := p.next("pump-1.0.0"); status != http.StatusUnauthorized {
			t.Errorf("%q: %d", auth, status)
		}
	}
	// It is one of Mender's, and nobody in hawkBit's words.
	if status, _, _ := w.Call(http.MethodGet, "/"+legacytest.Tenant+"/controller/v1/"+p.name, "TargetToken "+strings.TrimPrefix(second, "Bearer "), ""); status != http.StatusUnauthorized {
		t.Errorf("in hawkBit's words: %d", status)
	}
	_, err = w.People["frank"].RefuseLegacyClient(t.Context(), legacytest.Tenant, client.ClientRefusal{Kind: legacy.Mender, Name: p.name, Reason: "it was sold"})
	w.Must(err)
	p.auth = second
	if status, _, _ := p.next("pump-1.0.0"); status != http.StatusUnauthorized || p.asks() != http.StatusUnauthorized {
		t.Errorf("whom a person let in no more is answered %d", status)
	}
}

func TestWhatClientsSay(t *testing.T) {
	w := legacytest.Behind(t, &legacytest.Line{})
	p, other := newPlayed(w, p256(t), "1"), newPlayed(w, p256(t), "2")
	id, second := p.admitted(), other.admitted()
	old := w.PublishAs(wire.FormatMender, "1.0.0", "app", artifact(t, "pump-1.0.0", []byte("old")))
	next := w.PublishAs(wire.FormatMender, "1.1.0", "app", artifact(t, "pump-1.1.0", bytes.Repeat([]byte("new "), 1000)), old)
	for _, c := range []*played{p, other} {
		if status, _, _ := c.next("pump-1.0.0"); status != http.StatusNoContent {
			t.Fatalf("there is nothing to do, and it is answered %d", status)
		}
	}
	w.Runs(id, "1.0.0")
	w.Roll("r1", next, id)
	w.Roll("r2", next, second)
	n, uri := p.offered("pump-1.0.0")
	theirs, theirURI := other.offered("pump-1.0.0")
	if again, _ := p.offered("pump-1.0.0"); again != n || n == theirs {
		t.Fatalf("deployment %s is %s when asked for again, and %s another's", n, again, theirs)
	}
	for _, x := range []struct {
		number, said string
		status       int
	}{
		{strings.Repeat("4", 36), "success", 404},
		{theirs, "success", 404},
		{"x", "success", 404},
		{n[:24] + "002147483648", "success", 404},
		{n[:24] + "1", "success", 404},
		{n, "exploded", 422},
		{n, "downloading", 204},
		{n, "installing", 204},
		{n, "rebooting", 204},
		{n, "failure", 204},
		{n, "failure", 204},
		{n, "installing", 409}, // it has ended
		{n, "success", 409},
	} {
		if got := p.says(x.number, x.said); got != x.status {
			t.Errorf("%s on deployment %s: %d, want %d", x.said, x.number, got, x.status)
		}
	}
	w.Rolled("r1", rollout.RolledBack)
	log := func(number, body string) int {
		status, _, _ := w.Call(http.MethodPut, api+"deployments/device/deployments/"+number+"/log", p.auth, body)
		return status
	}
	for _, x := range []struct {
		number, body string
		status       int
	}{
		{n, `{"messages":[{"timestamp":"t1","level":"info","message":"first"}]}`, 204},
		{n, `{"messages":[{"timestamp":"t2","level":"info","message":"` + strings.Repeat("x", 900_000) + `"},{"timestamp":"t3","level":"error","message":"` + strings.Repeat("y", 900_000) + `\u001b[2J"}]}`, 204},
		{n, `{}`, 422},
		{theirs, `{"messages":[]}`, 404},
		{n, `{"x":"` + strings.Repeat("x", 5<<20) + `"}`, 413},
	} {
		if got := log(x.number, x.body); got != x.status {
			t.Errorf("log %.60s: %d, want %d", x.body, got, x.status)
		}
	}
	logs, err := w.People["olga"].LegacyLogs(t.Context(), legacytest.Tenant, p.name)
	w.Must(err)
	if len(logs) != 1 || len(logs[0].Messages) != 1 || logs[0].Messages[0].At != "t3" || strings.Contains(logs[0].Messages[0].Text, "\x1b") {
		t.Errorf("of the log its end is not what is kept: %d", len(logs))
	}

	// Success is not what still runs the old image.
	if got := other.says(theirs, "success"); got != http.StatusNoContent {
		t.Fatalf("success: %d", got)
	}
	other.next("pump-1.0.0")
	r, err := w.People["olga"].Rollout(t.Context(), "r2")
	w.Must(err)
	if r.Rollout.Last.Good != 0 || r.Rollout.Phase != rollout.Running {
		t.Errorf("a device that runs the old one counts: %+v", r.Rollout.Last)
	}
	if status, _, _ := other.next("pump-1.1.0"); status != http.StatusNoContent {
		t.Errorf("it is offered what it runs: %d", status)
	}
	w.Rolled("r2", rollout.Completed)
	if status, _, _ := w.Call(http.MethodGet, uri, "", ""); status != http.StatusOK {
		t.Errorf("its bytes: %d", status)
	}
	if status, body, h := w.Call(http.MethodGet, uri, "", "", "Range", "bytes=100-199"); status != http.StatusPartialContent || len(body) != 100 || !strings.HasPrefix(h.Get("Content-Range"), "bytes 100-199/") {
		t.Errorf("a range: %d %d bytes %v", status, len(body), h)
	}
	if status, _, _ := w.Call(http.MethodGet, strings.Replace(uri, "/download/", "/download/A", 1), "", ""); status != http.StatusForbidden {
		t.Errorf("an address that nobody was given: %d", status)
	}
	_, err = w.People["frank"].RefuseLegacyClient(t.Context(), legacytest.Tenant, client.ClientRefusal{Kind: legacy.Mender, Name: other.name, Reason: "it was sold"})
	w.Must(err)
	if status, _, _ := w.Call(http.MethodGet, theirURI, "", ""); status != http.StatusUnauthorized {
		t.Errorf("the address of a client that is let in no more: %d", status)
	}
	_, _ = w.Admit(legacy.Admission{Kind: legacy.Mender, Name: p.name, Key: newPlayed(w, p256(t), "1").digest()})
	if status, _, _ := w.Call(http.MethodGet, uri, "", ""); status != http.StatusForbidden {
		t.Errorf("the address that was given to who had another key: %d", status)
	}
}

// A client says no more of what it runs than an artifact's name, so no two versions have one of the same.
func TestAnArtifactHasANameOfItsOwn(t *testing.T) {
	w := legacytest.Behind(t, &legacytest.Line{})
	w.PublishAs(wire.FormatMender, "1.0.0", "app", artifact(t, "pump-1.0.0", []byte("old")))
	var again bytes.Buffer
	w.Must(mender.Write(&again, mender.Options{Name: "pump-1.0.0", Version: "1.1.0", DeviceTypes: []string{"A"}, Type: "app", File: "app"}, p256(t), strings.NewReader("new")))
	digest, err := w.People["rita"].Upload(t.Context(), legacytest.Tenant, "app", false, &again)
	w.Must(err)
	_, err = w.People["rita"].Propose(t.Context(), release.Spec{ID: "pump-1.1.0", Product: legacytest.Tenant, Version: "1.1.0", Counter: 1, Components: []release.Component{
		{Name: "app", Kind: wire.KindData, Version: "1.1.0", Artifact: digest, Format: wire.FormatMender, Health: wire.HealthNone},
	}})
	if err == nil || !strings.Contains(err.Error(), `is called "pump-1.0.0"`) {
		t.Errorf("a second artifact called pump-1.0.0: %v", err)
	}
}

func TestAReleaseWithoutAnArtifactFailsAtOnce(t *testing.T) {
	w := legacytest.Behind(t, &legacytest.Line{})
	p := newPlayed(w, p256(t), "1")
	id := p.admitted()
	next := w.Publish("1.1.0", "bundle", []byte("no artifact of Mender's"))
	p.next("1.0.0")
	w.Roll("r1", next, id)
	w.Until("it has failed", func() (bool, string) {
		if status, _, _ := p.next("1.0.0"); status != http.StatusNoContent {
			t.Fatalf("it is offered something: %d", status)
		}
		cs, err := w.People["olga"].DeviceCommands(t.Context(), id)
		w.Must(err)
		return len(cs) == 1 && cs[0].Standing == "failed" && strings.Contains(cs[0].Text, "0 artifacts"), fmt.Sprint(cs)
	})
}

func TestInventory(t *testing.T) {
	w := legacytest.Behind(t, &legacytest.Line{})
	p := newPlayed(w, p256(t), "1")
	p.admitted()
	say := func(method, body string) int {
		status, _, _ := w.Call(method, api+"inventory/device/attributes", p.auth, body)
		return status
	}
	if status := say(http.MethodPut, `[{"name":"board","value":"b1"},{"name":"nets","value":["eth0","wlan0"]},{"name":"long","value":"`+strings.Repeat("x", 400)+`"}]`); status != http.StatusOK {
		t.Fatal(status)
	}
	if status := say(http.MethodPatch, `[{"name":"board","value":"b2"}]`); status != http.StatusOK {
		t.Fatal(status)
	}
	if status := say(http.MethodPut, `{}`); status != http.StatusUnprocessableEntity {
		t.Error(status)
	}
	all, err := w.People["olga"].LegacyClients(t.Context(), legacytest.Tenant, legacy.Admitted)
	w.Must(err)
	if a := all[0].Attributes; a["board"] != "b2" || a["nets"] != "eth0,wlan0" || len(a["long"]) > legacy.MaxAttribute || !strings.HasSuffix(a["long"], "…") {
		t.Errorf("%v", a)
	}
}
