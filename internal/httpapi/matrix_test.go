package httpapi_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/comply"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/retire"
	"github.com/hallmark-iot/hallmark/wire"
)

var update = flag.Bool("update", false, "write testdata/matrix.txt anew; then read what has changed")

// described is the API's description, as far as tests need it.
type described struct {
	Paths map[string]map[string]operation `json:"paths"`
}

type operation struct {
	ID         string `json:"operationId"`
	Summary    string
	Tags       []string
	Parameters []struct {
		Name string `json:"name"`
		In   string `json:"in"`
	}
	RequestBody *struct {
		Content map[string]struct {
			Example any `json:"example"`
		}
	} `json:"requestBody"`
	Responses map[string]any

	method, path string
}

func (w *world) operations() []operation {
	w.t.Helper()
	_, data, _ := w.call("", http.MethodGet, "/openapi.json", nil, nil)
	var doc described
	if err := json.Unmarshal(data, &doc); err != nil {
		w.t.Fatal(err)
	}
	var out []operation
	for path, item := range doc.Paths {
		for method, op := range item {
			op.method, op.path = strings.ToUpper(method), path
			out = append(out, op)
		}
	}
	slices.SortFunc(out, func(a, b operation) int { return strings.Compare(a.path+" "+a.method, b.path+" "+b.method) })
	return out
}

// place names the things of product pump that the operations are tried on.
func place(op operation) string {
	if strings.HasPrefix(op.path, "/api/v1/genuine/") {
		return strings.NewReplacer("{id}", subject, "{question}", strings.Repeat("0", 32)).Replace(op.path)
	}
	for prefix, id := range map[string]string{
		"/devices/": subject, "/findings/": "f1", "/remedies/": heldCase, "/retirements/": ending, "/rollouts/": "ro-1", "/orders/": "ord-1",
		"/enrolments/": subject, "/products/": "pump", "/commands/": "c1", "/streams/grants/": "g1", "/members/": "person:victim", "/issuers/": "abcdef", "/proposals/": "0p1", "/owners/": acme, "/recalls/": subject, "/vouchers/": "v1", "/foreign-cas/": strings.Repeat("fc", 32), "/keys/": "directive", "/suppliers/": "acme-memory", "/parts/": "flash", "/lots/": "flash-2626",
	} {
		if strings.HasPrefix(op.path, "/api/v1"+prefix) {
			op.path = strings.ReplaceAll(op.path, "{id}", id)
		}
	}
	path := strings.NewReplacer("{framework}", "etsi-en-303-645", "{ecosystem}", "Go", "{control}", "5.12-1", "{recall}", "rc-1", "{digest}", releaseDigest(), "{product}", "pump", "{name}", "app", "{log}", "control", "{index}", "0", "{issuer}", "abcdef",
		"{serial}", "1", "{uid}", strings.Repeat("0", 32), "{credential}", strings.Repeat("0", 16)).Replace(op.path)
	for _, p := range op.Parameters {
		if p.In == "query" && p.Name == "what" {
			return path + "?what=pkg:golang/acme.example/lib"
		}
		if p.In == "query" && p.Name == "name" {
			return path + "?name=serial=1"
		}
		if p.In == "query" && p.Name == "product" {
			return path + "?product=pump"
		}
	}
	return path
}

// elsewhere are the operations that answer a caller of another product with what is theirs, or nobody's.
var elsewhere = []string{"list-products", "get-self", "stream-events", "fleet-summary", "list-queries", "forget-query", "find-component", "list-lot-devices"}

// shared are the operations that besides answer a caller of another group of the product: what the product is to every group, and lists
// that are cut to what is in theirs.
var shared = append([]string{
	"get-product", "get-product-readiness", "get-bundle", "list-releases", "get-release", "list-artifacts", "list-deltas", "list-release-components", "get-release-gate", "get-release-summary", "get-release-document", "get-suit", "get-artifact", "list-approvers",
	"list-devices", "list-findings", "list-remedies", "list-retirements", "list-rollouts", "list-groups", "list-proposals", "list-enrolments", "list-vouchers", "list-recalls", "save-query", "find-component",
}, elsewhere...)

// ours are the things of the world that are in the group of the device, or the whole product's.
var ours = []string{subject, heldCase, ending, spare, groupless, `"f1"`, `"ro-1"`, `"ord-1"`, `"c1"`, `"g1"`, `"0p1"`, "eu/berlin"}

// unmet are the operations that succeed for nobody with what the world has: the envelopes of the examples are signed by nobody,
// and what they name is not there. Others that do not succeed for anybody have been tried on the wrong thing.
var unmet = []string{
	"create-product",                                       // there is a pump
	"bind-identity", "unbind-identity", "bind-certificate", // there is no provider, and the member is a person
	"refuse-enrolment",                                                           // it was approved before
	"create-voucher", "get-device-identity", "trust-foreign-ca", "abandon-order", // the device has no production record; and these take two
	"install-issuer", "trust-root", "request-issuer-list", "put-issuer-list", // no ceremony has been held, and there is no root of that name
	"list-legacy-logs",                                           // there is no such client
	"welcome-device",                                             // the example is no chain of custody
	"get-desk-file", "add-desk", "remove-desk", "register-order", // no desk has written the examples, and there is no key for desks
	"take-master", "get-master", "give-master-document", "get-master-document", // no approver signed the example, and no other is here
	"trust-chip-vendor", "end-chip-vendor", "import-chips", "show-chip", // it takes two, and nobody's chips are known
	"get-lot-certificate", "clear-lot", "take-order-lot", // the lot has none; and these take two
	"close-finding",                                                                                  // the device was lost before, and its findings settled with it
	"claim-device", "transfer-devices", "give-up-handover", "mark-found", "mark-mended", "end-owner", // the code is another's, nobody owns it, it is not handed over, it was not stolen and is in no recall, and the owner has a device
	"bind-approver", "unbind-approver", // they take two, and the key is in no bundle
	"take-exception",                                         // nobody has signed one
	"get-release-document",                                   // it was proposed without documents
	"retire-key",                                             // it is the only one of its role
	"submit-ceremony", "request-product", "activate-product", // signed by nobody; the pump is ready, and nothing was asked for it
	"submit-warrant", "publish-bundle", "retire-devices", "create-order", "import-records", "close-order", "propose-release", "approve-release", "sign-suit", "get-suit",
	"publish-release", "make-deltas", "get-artifact", "pack-carton", "take-history", "create-rollout", "dry-run-rollout", "start-rollout", "pause-rollout", "resume-rollout", "shut-rollout", "set-rollout-bandwidth", "halt-rollout", "reprovision-remedy",
	"dispose-device", "forget-device", "get-proof-of-disposal", "revoke-certificate", "revoke-issuer", "revoke-credential", "read-stream", "get-fact", "get-receipt", "dismiss-remedy", "run-proposal", "refuse-proposal",
}

// Every operation, tried by every role, by nobody, and by three who hold every role in a part of the fleet only: in another product, in
// another group of the product, and in the group of the device it is tried on (or the one above).
func TestWhoMayDoWhat(t *testing.T) {
	w := newWorld(t)
	w.start()
	callers := []string{"", "other", "neighbour"}
	w.issue("other", access.Roles(), "valve")
	w.issue("neighbour", access.Roles(), "pump/us", "pump/e", "pump/eu/berlin/ward-3")
	w.issue("group", access.Roles(), "pump/eu")
	w.issue("victim", []access.Role{access.Viewer})
	for _, r := range access.Roles() {
		w.issue(string(r), []access.Role{r})
		callers = append(callers, string(r))
	}
	callers = append(callers, "group")
	forged := w.forgeries()
	var got strings.Builder
	fmt.Fprintln(&got, "# operation: who is let through to it; +another: with a second person. nobody and those of another product are in no line. group: who has\n# every role, in the group of the device only; neighbour: in another group of the product.")
	for _, op := range w.operations() {
		if op.Tags[0] == "genuine" { // whoever asks is a stranger, token or not
			if status, data, _ := w.call("", op.method, place(op), bodyOf(op), nil); status == http.StatusUnauthorized || status >= http.StatusInternalServerError {
				t.Errorf("%s by nobody: %d %s", op.ID, status, data)
			}
			fmt.Fprintf(&got, "%s %s %s: anybody\n", op.ID, op.method, strings.TrimPrefix(op.path, "/api/v1"))
			continue
		}
		in, met := bodyOf(op), false
		if forged[op.ID] != nil {
			in = forged[op.ID]
		}
		var through []string
		for _, who := range callers {
			status, data, _ := w.call(who, op.method, place(op), in, nil)
			ok := status < 300
			met = met || ok
			switch {
			case status >= http.StatusInternalServerError && status != http.StatusServiceUnavailable:
				t.Errorf("%s by %q: %d %s", op.ID, who, status, data)
			case who == "" && status != http.StatusUnauthorized:
				t.Errorf("%s by nobody: %d %s", op.ID, status, data)
			case who == "other" && ok && !slices.Contains(elsewhere, op.ID):
				t.Errorf("%s on product pump by who is of product valve: %d %s", op.ID, status, data)
			case who == "other" && ok && strings.Contains(string(data), `"pump"`):
				t.Errorf("%s tells who is of product valve of pump: %s", op.ID, data)
			case who == "neighbour" && status != http.StatusForbidden && !slices.Contains(shared, op.ID):
				t.Errorf("%s by who is of another group: %d %s", op.ID, status, data)
			case who == "neighbour" && slices.ContainsFunc(ours, func(x string) bool { return strings.Contains(string(data), x) }) && ok && op.ID != "get-self":
				t.Errorf("%s tells who is of another group: %s", op.ID, data)
			case who == "group" && ok && strings.Contains(string(data), groupless):
				t.Errorf("%s tells who is of a group of a device in none: %s", op.ID, data)
			case status == http.StatusForbidden && strings.Contains(string(data), "fault:access.four-eyes"):
				through = append(through, who+"+another")
			case who != "" && who != "other" && status != http.StatusForbidden:
				through = append(through, who)
			}
		}
		if !met && !slices.Contains(unmet, op.ID) {
			t.Errorf("%s succeeds for nobody", op.ID)
		}
		fmt.Fprintf(&got, "%s %s %s: %s\n", op.ID, op.method, strings.TrimPrefix(op.path, "/api/v1"), strings.Join(through, " "))
	}
	const golden = "testdata/matrix.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	have := strings.Split(got.String(), "\n")
	for line := range strings.SplitSeq(string(want), "\n") {
		if !slices.Contains(have, line) {
			t.Errorf("no longer so: %s", line)
		}
	}
	for _, line := range have {
		if !slices.Contains(strings.Split(string(want), "\n"), line) {
			t.Errorf("new: %s", line)
		}
	}
}

// forgeries are well-formed envelopes of product pump that nobody signed who may: whoever is let through is told so.
func (w *world) forgeries() map[string]any {
	w.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	var v httpapi.BundleView
	_, data, _ := w.call("root", http.MethodGet, "/api/v1/products/pump/bundle", nil, nil)
	if err := json.Unmarshal(data, &v); err != nil {
		w.t.Fatal(err)
	}
	v.Bundle.Version++
	bundle, e1 := wire.EncodeBundle(v.Bundle)
	set, e2 := wire.SetOf([]string{subject})
	now := uint64(time.Now().Unix())
	warrant, e3 := wire.EncodeWarrant(wire.Warrant{ID: "forged", Product: "pump", Act: wire.ActWipe, Devices: set, Reason: "test", Issued: now, Expires: now + 3600})
	signedBundle, e4 := wire.NewThreshold(wire.TypeBundle, bundle, key)
	signedWarrant, e5 := wire.NewThreshold(wire.TypeWarrant, warrant, key)
	if err := errors.Join(e1, e2, e3, e4, e5); err != nil {
		w.t.Fatal(err)
	}
	return map[string]any{
		"publish-bundle": httpapi.Envelope{Envelope: signedBundle},
		"submit-warrant": httpapi.WarrantRequest{Envelope: signedWarrant, Devices: []string{subject}},
		"state-control":  comply.Words{Kind: comply.Fulfilled, Text: "page 7 of the manual", ReviewBy: time.Now().AddDate(1, 0, 0)},
		"retire-devices": retire.Order{Product: "pump", Devices: []string{subject}, Reason: "test", Warrant: signedWarrant},
	}
}

func bodyOf(op operation) any {
	switch op.ID {
	case "upload-artifact":
		return []byte("some bytes")
	case "import-advisories":
		return []byte(`{"id":"GO-1","modified":"2026-01-01T00:00:00Z","affected":[{"package":{"ecosystem":"Go","name":"acme.example/lib"}}]}`)
	case "certify-lot":
		return []byte("a certificate")
	case "import-devices":
		return []byte("name,key_sha256\nvalve-1," + strings.Repeat("ab", 32) + "\n")
	}
	if ex, ok := httpapi.Examples[op.ID]; ok {
		return ex
	}
	return nil
}

// Every operation says what a reader needs, and every body has an example that is one.
func TestTheDescriptionIsComplete(t *testing.T) {
	w := newWorld(t)
	w.start()
	for _, op := range w.operations() {
		if op.Summary == "" || len(op.Tags) != 1 || op.Responses["401"] == nil || op.Responses["500"] == nil {
			t.Errorf("%s: %+v", op.ID, op)
		}
		if op.RequestBody == nil {
			continue
		}
		if c, ok := op.RequestBody.Content["application/json"]; ok && c.Example == nil {
			t.Errorf("%s has no example", op.ID)
		}
		status, data, _ := w.call("root", op.method, place(op), bodyOf(op), nil)
		if status == http.StatusUnprocessableEntity && strings.Contains(string(data), "validation failed") {
			t.Errorf("the example of %s: %s", op.ID, data)
		}
	}
}
