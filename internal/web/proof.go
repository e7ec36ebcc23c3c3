package web

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"
)

// ProofPage returns the page that checks a proof in the browser, as one HTML
// file that needs no server, and its Content-Security-Policy: nothing
// but its own script and style, which are named by their hashes, and no requests.
func ProofPage() (html []byte, csp string, err error) {
	part := map[string]string{}
	for _, name := range []string{"proof.html", "proof.css", "proof.js"} {
		b, err := dist.ReadFile("dist/" + name)
		if err != nil {
			return nil, "", err
		}
		part[name] = string(b)
	}
	csp = "default-src 'none'; script-src '" + sourceHash(part["proof.js"]) + "'; style-src '" + sourceHash(part["proof.css"]) +
		"'; base-uri 'none'; form-action 'none'"
	out := strings.NewReplacer("{{CSP}}", csp, "{{STYLE}}", part["proof.css"], "{{SCRIPT}}", part["proof.js"]).Replace(part["proof.html"])
	return []byte(out), csp, nil
}

// sourceHash is how a policy names an inline script or style.
func sourceHash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

func (h *handler) proofPage(w http.ResponseWriter, _ *http.Request) {
	html, csp, err := ProofPage()
	if err != nil {
		h.fail(w, "read page", err)
		return
	}
	w.Header().Set("Content-Security-Policy", csp+"; frame-ancestors 'none'")
	answer(w, "text/html; charset=utf-8", html)
}
