const { SwaggerUIBundle, SwaggerUIStandalonePreset } = globalThis;

const { documents, apiKey, tenantId } = await (await fetch("/docs/settings.json")).json();

document.querySelector("#notice").textContent = apiKey
  ? `Calls carry a key of the tenant ${tenantId}, which holds one simulated dock, sandbox-dock-1, and nothing else. Authorize sets another key.`
  : "Authorize sets the API key or the access token that calls carry.";

const explorer = SwaggerUIBundle({
  urls: documents,
  dom_id: "#explorer",
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset],
  // The logo brings an inline style, which the page's policy does not allow.
  plugins: [() => ({ components: { Logo: () => null } })],
  layout: "StandaloneLayout",
  deepLinking: true,
  tryItOutEnabled: true,
  displayRequestDuration: true,
  // The badge of an online validator would send the document to it.
  validatorUrl: null,
  onComplete() {
    if (apiKey) explorer.preauthorizeApiKey("apiKey", apiKey);
  },
});
