package client

import (
	"bytes"
	"encoding/base64"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/internal/httpapi"
)

// An answer that was cut off anywhere is no order's file.
func TestAFileThatBreaksOffIsNoFile(t *testing.T) {
	file := bytes.Repeat([]byte("order"), 1000)
	whole := `{"order":{"id":"ord-1"},"file":"` + base64.StdEncoding.EncodeToString(file) + "\"}\n"
	take := func(text string) ([]byte, httpapi.OrderView, error) {
		var out bytes.Buffer
		var v httpapi.OrderView
		resp := &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(text))}
		err := (&Client{}).order(resp, orderIn{&v, &out})
		return out.Bytes(), v, err
	}
	if got, v, err := take(whole); err != nil || !bytes.Equal(got, file) || v.ID != "ord-1" {
		t.Fatalf("%d bytes of %q, %v", len(got), v.ID, err)
	}
	end := strings.LastIndex(whole, `"`)
	for n := range end {
		if _, _, err := take(whole[:n]); err == nil {
			t.Fatalf("cut at %d of %d: taken", n, len(whole))
		}
	}
	for _, other := range []string{`{"order":{},"file":7}`, `{"order":{}}`, `{"file":"AA=="}`, `[]`, `{"order":{},"file":"%%"}`} {
		if _, _, err := take(other); err == nil {
			t.Errorf("%s: taken", other)
		}
	}
}
