package client

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/wire"
)

// A long file goes in parts: each batch once and whole, none too long to be taken, and the last first, with the station's end.
func TestALongRecordFileGoesInParts(t *testing.T) {
	file := wire.RecordFile{Order: "ord-1"}
	for i := range 11 {
		file.Batches = append(file.Batches, bytes.Repeat([]byte{byte(i)}, 100+i))
	}
	data, err := wire.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	var parts []wire.RecordFile
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in httpapi.RecordsRequest
		f := wire.RecordFile{}
		err := json.NewDecoder(r.Body).Decode(&in)
		if err == nil {
			f, err = wire.DecodeRecordFile(in.File)
		}
		if err != nil || r.URL.Path != "/api/v1/orders/ord-1/records" {
			t.Errorf("%s: %v", r.URL.Path, err)
		}
		parts = append(parts, f)
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(factory.ImportReport{Order: f.Order, Accepted: len(f.Batches), JobEnd: len(parts) == 1, Alarms: []factory.Standing{{Seq: uint32(len(parts))}}})
	}))
	defer srv.Close()
	var said []byte
	c := &Client{base: srv.URL, http: srv.Client(), replied: func(body []byte) { said = body }}
	r, err := c.importParts(t.Context(), "ord-1", bytes.NewReader(data), int64(len(data)), 350)
	if err != nil || r.Accepted != len(file.Batches) || !r.JobEnd || len(r.Alarms) != len(parts) {
		t.Fatalf("%+v of %d parts, %v", r, len(parts), err)
	}
	if whole, err := json.Marshal(r); err != nil || !bytes.Equal(said, whole) {
		t.Errorf("the answer is told as %s, %v", said, err)
	}
	if len(parts) < 4 || !slices.EqualFunc(parts[0].Batches[len(parts[0].Batches)-1:], file.Batches[10:], bytes.Equal) {
		t.Errorf("%d parts, the first is not the end", len(parts))
	}
	var all [][]byte
	for _, p := range append(parts[1:], parts[0]) {
		size := 0
		for _, b := range p.Batches {
			size += len(b)
		}
		if size > 350 || p.Order != "ord-1" {
			t.Errorf("a part of %d bytes of order %s", size, p.Order)
		}
		all = append(all, p.Batches...)
	}
	if !slices.EqualFunc(all, file.Batches, bytes.Equal) {
		t.Error("the parts are not the file")
	}
	parts = nil
	if _, err := c.importParts(t.Context(), "ord-1", bytes.NewReader(data), int64(len(data)-1), 350); err == nil || len(parts) != 0 {
		t.Errorf("a file that was cut off: %v, %d parts sent", err, len(parts))
	}
}
