package console_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func TestSigningIn(t *testing.T) {
	s := server(t)
	post := func(form url.Values, header ...string) *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/login", strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
		return resp
	}
	for _, code := range []string{"good", "bad", `"><script>alert(1)</script>`} {
		resp, page := get(t, s, "/login?once="+url.QueryEscape(code), "")
		if resp.StatusCode != 200 || len(resp.Cookies()) != 0 || !strings.Contains(page, `name="once"`) || strings.Contains(page, "<script>alert") {
			t.Errorf("looking at a link with %q: %d, cookies %v", code, resp.StatusCode, resp.Cookies())
		}
	}
	for _, field := range []string{"once", "token"} {
		if resp := post(url.Values{field: {"bad"}}); resp.StatusCode != http.StatusForbidden || len(resp.Cookies()) != 0 {
			t.Errorf("a bad %s: %d, cookies %v", field, resp.StatusCode, resp.Cookies())
		}
		if resp := post(url.Values{field: {"good"}}, "Sec-Fetch-Site", "cross-site"); resp.StatusCode != http.StatusForbidden || len(resp.Cookies()) != 0 {
			t.Errorf("a good %s from another site's page: %d, cookies %v", field, resp.StatusCode, resp.Cookies())
		}
		c := post(url.Values{field: {"good"}}, "Sec-Fetch-Site", "same-origin").Cookies()
		if len(c) != 1 || c[0].Value != "viewer" || !c[0].HttpOnly || c[0].SameSite != http.SameSiteStrictMode {
			t.Errorf("a good %s: cookies %v", field, c)
		}
	}
	if _, page := get(t, s, "/login?problem=%3Cb%3E", ""); strings.Contains(page, "<b>&lt;") || !strings.Contains(page, "did not work") || !strings.Contains(page, "hallmark recover") {
		t.Error("the page of somebody lost does not say what to do")
	}
}
