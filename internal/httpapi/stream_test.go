package httpapi_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/factory/chips"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/blob"
	"github.com/hallmark-iot/hallmark/internal/blob/files"
	"github.com/hallmark-iot/hallmark/internal/factorytest"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/supply"
	"github.com/hallmark-iot/hallmark/wire"
)

// roles knows callers by their token: its role.
type roles struct{}

func (roles) Authenticate(_ context.Context, token string) (access.Caller, error) {
	return access.Caller{ID: "person:" + token, Kind: access.Person, Roles: []access.Role{access.Role(token)}, Via: "token"}, nil
}

func (roles) Certificate(context.Context, *x509.Certificate) (access.Caller, error) {
	return access.Caller{}, fault.New(fault.Denied, "x", "no", "")
}

func (roles) Caller(context.Context, string) (access.Caller, error) {
	return access.Caller{}, errors.New("no sessions here")
}

type bench struct {
	h      http.Handler
	chips  *chips.Service
	oem    *factorytest.OEM
	loaded int // how often firmware was gathered

	firmware *httpapi.Firmware // nil: there is none
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{oem: factorytest.NewOEM(t, "acme")}
	db := b.oem.DB
	p := product.Product{ID: factorytest.Product, Model: wire.ModelAsset, Hardware: []string{factorytest.Hardware}}
	if err := db.PutProduct(t.Context(), p, ledger.New(ledger.KindProductCreated, b.oem.Now, "test", p.ID, nil, []byte("{}"))); err != nil {
		t.Fatal(err)
	}
	guard, err := access.NewGuard(db)
	if err != nil {
		t.Fatal(err)
	}
	place, err := files.Open(filepath.Join(t.TempDir(), "blobs"))
	if err != nil {
		t.Fatal(err)
	}
	blobs := blob.New(place, db.Blobs())
	rel := db.Releases()
	stock, err := supply.NewService(supply.Config{Store: db.Supply(), Blobs: blobs, Releases: db.Supply(), Alarms: noAlarms{}, Seal: noSeal, Instance: "hallmark.example", Guard: guard})
	if err != nil {
		t.Fatal(err)
	}
	svc, err := release.NewService(release.Config{
		Supply: stock, Store: rel, Artifacts: rel, Deltas: rel, Blobs: blobs, Products: rel, Trust: db.Devices(), Ledger: ledger.NewReader(db), Commands: noCommands{}, Guard: guard,
	})
	if err != nil {
		t.Fatal(err)
	}
	b.chips = chips.New(db.Chips(), guard)
	b.h = httpapi.Handler(httpapi.Services{
		Guard: guard, Chips: b.chips, Release: svc, Supply: stock, Factory: b.oem.Service,
		Firmware: func(context.Context, access.Caller, string, [32]byte) (httpapi.Firmware, error) {
			b.loaded++
			if b.firmware != nil {
				return *b.firmware, nil
			}
			return httpapi.Firmware{}, errors.New("gathered")
		},
		Once: db,
	}, roles{}, slog.New(slog.DiscardHandler))
	return b
}

// body counts what is read of it; it is zeros after the beginning, as long as one likes.
type body struct {
	head io.Reader
	left int64
	read int64
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.head.Read(p)
	if n == 0 && err != nil {
		if n = int(min(b.left, int64(len(p)))); n == 0 {
			return 0, io.EOF
		}
		clear(p[:n])
		b.left -= int64(n)
	}
	b.read += int64(n)
	return n, nil
}

func (b *bench) post(t *testing.T, role, path string, data *body, length int64) *httptest.ResponseRecorder {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, data)
	req.ContentLength = length
	req.Header.Set("Content-Type", "application/json")
	if strings.Contains(path, "artifacts") {
		req.Header.Set("Content-Type", "application/octet-stream")
	}
	req.Header.Set("Authorization", "Bearer "+role)
	w := httptest.NewRecorder()
	b.h.ServeHTTP(w, req)
	return w
}

const (
	uploads = "/api/v1/products/" + factorytest.Product + "/artifacts/app"
	records = "/api/v1/orders/ord-1/records"
)

func text(s string) *body { return &body{head: strings.NewReader(s)} }

// Who may not do it does not get a byte read of what he sends, let alone kept.
func TestTheBodyOfWhoMayNotIsNotRead(t *testing.T) {
	b := newBench(t)
	for _, path := range []string{uploads, records} {
		sent := &body{head: strings.NewReader(`{"file":"`), left: 1 << 20}
		if w := b.post(t, "viewer", path, sent, -1); w.Code != http.StatusForbidden || sent.read != 0 {
			t.Errorf("%s: %d, %d bytes read", path, w.Code, sent.read)
		}
	}
	spec, err := json.Marshal(httpapi.OrderRequest{Product: factorytest.Product, Hardware: "rev-b", Quota: 1, Descriptor: []byte{1}, StationPin: []byte{1}, Release: strings.Repeat("0", 64)})
	if err != nil {
		t.Fatal(err)
	}
	if w := b.post(t, "viewer", "/api/v1/orders", text(string(spec)), -1); w.Code != http.StatusForbidden || b.loaded != 0 {
		t.Errorf("order: %d, firmware gathered %d times", w.Code, b.loaded)
	}
	if w := b.post(t, "factory", "/api/v1/orders", text(string(spec)), -1); b.loaded != 1 {
		t.Errorf("who may order: %d, firmware gathered %d times", w.Code, b.loaded)
	}
}

func TestAnUploadGoesToTheBlobsAsItComes(t *testing.T) {
	b := newBench(t)
	const size = 8 << 20
	sent := &body{head: strings.NewReader("x"), left: size - 1}
	w := b.post(t, "release-manager", uploads, sent, -1)
	var got httpapi.ArtifactView
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != http.StatusOK || got.Size != size || sent.read != size {
		t.Fatalf("%d, %s, %d read, %v", w.Code, w.Body, sent.read, err)
	}
	for name, c := range map[string]struct {
		body   *body
		length int64
		code   int
		read   int64
	}{
		"nothing":                {text(""), 0, http.StatusUnprocessableEntity, 0},
		"too long, it says":      {&body{head: strings.NewReader("x"), left: 1 << 20}, httpapi.MaxUpload + 1, http.StatusUnprocessableEntity, 0},
		"shorter than it says":   {text("abc"), 10, http.StatusUnprocessableEntity, 3},
		"as long as it may, not": {text("abc"), 3, http.StatusOK, 3},
	} {
		if w := b.post(t, "release-manager", uploads, c.body, c.length); w.Code != c.code || c.body.read != c.read {
			t.Errorf("%s: %d, %d read: %s", name, w.Code, c.body.read, w.Body)
		}
	}
}

func TestRecordsComeInMeasure(t *testing.T) {
	b := newBench(t)
	big := &body{head: strings.NewReader(`{"file":"`), left: httpapi.MaxRecords + 1<<20}
	w := b.post(t, "factory", "/api/v1/orders/none/records", text(`{"file":""}`), -1)
	if w.Code != http.StatusNotFound {
		t.Errorf("no such order: %d", w.Code)
	}
	row := factory.Order{ID: "ord-1", Product: factorytest.Product, State: factory.Open, Created: b.oem.Now}
	if err := b.oem.DB.CreateOrder(t.Context(), row); err != nil {
		t.Fatal(err)
	}
	if w := b.post(t, "factory", records, big, httpapi.MaxRecords+1<<20); w.Code != http.StatusUnprocessableEntity || big.read != 0 {
		t.Errorf("too long, as it says: %d, %d read", w.Code, big.read)
	}
	for sent, want := range map[string]string{
		`{"file":"AAAA"}`:          "records.invalid",
		`{"file":"AAAA"} {}`:       "body.invalid",
		`{"file":"AAAA","x":1}`:    "body.invalid",
		`{`:                        "body.invalid",
		`{"file":"` + "\x00" + `"`: "body.invalid",
	} {
		if w := b.post(t, "factory", records, text(sent), -1); w.Code != http.StatusUnprocessableEntity || !bytes.Contains(w.Body.Bytes(), []byte(want)) {
			t.Errorf("%q: %d, %s", sent, w.Code, w.Body)
		}
	}
}

// What is read by hand is described all the same.
func TestStreamedBodiesAreDescribed(t *testing.T) {
	b := newBench(t)
	req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/openapi.json", nil)
	req.Header.Set("Authorization", "Bearer viewer")
	w := httptest.NewRecorder()
	b.h.ServeHTTP(w, req)
	var doc struct {
		Paths map[string]map[string]struct {
			RequestBody struct {
				Required bool           `json:"required"`
				Content  map[string]any `json:"content"`
			} `json:"requestBody"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	for path, kind := range map[string]string{
		"/api/v1/products/{product}/artifacts/{name}": "application/octet-stream", "/api/v1/orders/{id}/records": "application/json",
	} {
		if r := doc.Paths[path]["post"].RequestBody; !r.Required || r.Content[kind] == nil {
			t.Errorf("%s: %+v", path, r)
		}
	}
}

// A vendor's manifest may be longer than any body that is read before it is known who sends it.
func TestAManifestOfChipsComesAsItIsRead(t *testing.T) {
	const size = 9 << 20
	b := newBench(t)
	vendor := factorytest.NewVendor(t)
	sam := access.Caller{ID: "person:sam", Kind: access.Person, Roles: []access.Role{access.Security}, Via: "token"}
	two := sam.With(access.Caller{ID: "person:ada", Kind: access.Person, Roles: []access.Role{access.Security}, Via: "proposal", Seconded: sam.ID})
	if _, err := b.chips.Trust(t.Context(), two, "acme-silicon", [][]byte{vendor.Cert.Raw}); err != nil {
		t.Fatal(err)
	}
	entry := `"` + strings.Repeat("x", 60<<10) + `"`
	var list strings.Builder
	list.WriteString("[" + entry)
	for list.Len() < size {
		list.WriteString("," + entry)
	}
	list.WriteString("]")
	for role, want := range map[string]int{"viewer": http.StatusForbidden, "security": http.StatusOK} {
		sent := text(list.String())
		w := b.post(t, role, "/api/v1/chip-vendors/acme-silicon/chips", sent, -1)
		if w.Code != want || (want == http.StatusForbidden) != (sent.read == 0) {
			t.Errorf("%s: %d, %d bytes read: %.300s", role, w.Code, sent.read, w.Body)
		}
	}
}

// What the front has to know of operations is said of operations that there are, and of these.
func TestWhatIsSaidOfOperations(t *testing.T) {
	got := map[string][]string{}
	for path, item := range httpapi.Description().Paths {
		for method, o := range map[string]*huma.Operation{http.MethodGet: item.Get, http.MethodPost: item.Post, http.MethodPut: item.Put, http.MethodPatch: item.Patch, http.MethodDelete: item.Delete} {
			if o == nil {
				continue
			}
			for mark := range o.Metadata {
				got[mark] = append(got[mark], o.OperationID)
			}
			if len(o.Security) == 0 && o.Security != nil && o.Metadata["for-anybody"] == nil {
				t.Errorf("%s %s asks for no token, it says, and the front asks for one", method, path)
			}
		}
	}
	for mark, want := range map[string][]string{
		"reads-body":   {"certify-lot", "give-master-document", "import-advisories", "import-chips", "import-devices", "import-records", "take-exception", "upload-artifact"},
		"gives-secret": {"add-legacy-gateway", "admit-legacy-client", "claim-device", "create-claim-codes", "create-order", "create-token", "create-voucher", "read-stream", "transfer-devices"},
		"for-anybody":  {"ask-device", "get-question", "get-signed-verdict", "get-verdict"},
	} {
		slices.Sort(got[mark])
		if !slices.Equal(got[mark], want) {
			t.Errorf("%s: %v, want %v", mark, got[mark], want)
		}
	}
}

// noAlarms is for instances in which nobody watches.
type noAlarms struct{}

func (noAlarms) Flawed(context.Context, supply.Held, supply.Trouble) error { return nil }
func (noAlarms) Mended(context.Context, supply.Held, string, string) error { return nil }

func noSeal(string, []byte) ([]byte, error) { return nil, supply.ErrNotFound }

// noCommands is a device stage that told nobody anything.
type noCommands struct{}

func (noCommands) Recall(context.Context, access.Caller, string, [32]byte, string) error { return nil }
