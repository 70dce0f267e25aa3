package client_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/hallmark-iot/hallmark/client"
)

// instance stands for a Hallmark that has three devices, two of them on the first page, and a product named pump.
func instance() *httptest.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/devices", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Query().Get("after") == "" {
			fmt.Fprint(w, `{"items":[{"id":"a","state":"active"},{"id":"b","state":"active"}],"next":"b"}`)
			return
		}
		fmt.Fprint(w, `{"items":[{"id":"c","state":"dormant"}]}`)
	})
	mux.HandleFunc("POST /api/v1/products", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusConflict)
		fmt.Fprint(w, `{"type":"urn:hallmark:fault:product.exists","title":"conflict","status":409,"detail":"product pump exists: choose another ID"}`)
	})
	mux.HandleFunc("GET /api/v1/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "retry: 2000\nid: control:3,events:6\n: stream at control:3,events:6\n\n")
		fmt.Fprint(w, "id: control:3,events:7\nevent: fact\n"+
			`data: {"log":"events","index":6,"kind":"device.enrolled","subject":"a","at":"2030-01-31T12:00:00Z"}`+"\n\n: still here\n\n")
	})
	return httptest.NewServer(mux)
}

// Every device, over as many pages as there are; and a problem by its code.
func Example() {
	ctx, server := context.Background(), instance()
	defer server.Close()
	h, err := client.NewHallmark(server.URL, "hmk_…")
	if err != nil {
		fmt.Println(err)
		return
	}

	devices := client.All(ctx, func(ctx context.Context, after *string) ([]client.FleetDevice, *string, error) {
		page, err := h.ListDevicesWithResponse(ctx, &client.ListDevicesParams{After: after})
		if err != nil {
			return nil, nil, err
		}
		return page.JSON200.Items, page.JSON200.Next, nil
	})
	for d, err := range devices {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(d.ID, d.State)
	}

	_, err = h.CreateProductWithResponse(ctx, nil, client.CreateProductJSONRequestBody{ID: "pump", OEM: "acme", Name: "Pump"})
	if client.Code(err) == "product.exists" {
		fmt.Println("there is one already:", err)
	}
	// Output:
	// a active
	// b active
	// c dormant
	// there is one already: product pump exists: choose another ID
}

// Events as they happen; a stream that was broken goes on behind the last one that was seen.
func ExampleHallmark_Follow() {
	server := instance()
	defer server.Close()
	h, err := client.NewHallmark(server.URL, "hmk_…")
	if err != nil {
		fmt.Println(err)
		return
	}
	last := ""
	for event, err := range h.Follow(context.Background(), last) {
		last = event.ID
		if err != nil {
			fmt.Println("broken:", err)
			break // and again, after a while, from last
		}
		fmt.Println(last, event.Kind, event.Subject)
	}
	// Output:
	// control:3,events:7 device.enrolled a
	// broken: unexpected EOF
}
