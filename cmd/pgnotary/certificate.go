package main

import (
	"log/slog"
	"time"

	"github.com/pgnotary/pgnotary/internal/config"
)

// expirySoon is how long before its end a certificate is warned of.
const expirySoon = 14 * 24 * time.Hour

// checkCertificates warns of certificates that will make logins fail: one that ends soon, and one
// that is not the server's, to which the clients' SCRAM logins would be bound. It runs at start,
// after a reload and every hour, since either side may renew its certificate.
func (p *proxy) checkCertificates() {
	if p.certs == nil {
		return
	}
	if ends := p.certs.Expires(); time.Until(ends) < expirySoon {
		p.log.Warn("the certificate shown to clients ends soon", slog.Time("not_after", ends))
	}
	if p.users != nil || p.asked != nil || p.settings.Load().UpstreamTLS == config.TLSDisable {
		return // each leg is bound to its own certificate, or the server shows none
	}
	go func() { // it may have to wait for the server
		leaf, err := p.relay.ServerCertificate()
		switch {
		case err != nil:
			p.log.Warn("the server's certificate cannot be compared with the one shown to clients", slog.Any("error", err))
		case leaf == nil || leaf.Equal(p.certs.Leaf()):
		default:
			p.log.Warn("channel binding will fail: clients see another certificate than the server's; logins by SCRAM need channel_binding=disable",
				slog.String("ours", p.certs.Leaf().Subject.String()), slog.String("server", leaf.Subject.String()),
				slog.Time("server_not_after", leaf.NotAfter))
		}
	}()
}
