import { bearingOf, clamp, createRandom, toRadians } from "./geo.ts";

/** The weather at a dock at one moment. */
export interface Weather {
  /** Where the wind blows to, metres a second east. */
  windX: number;
  /** Where the wind blows to, metres a second north. */
  windY: number;
  /** How much of it is gust, that is, not yet balanced by the autopilot. */
  gustX: number;
  gustY: number;
  /** The fields of portolan.common.v1.Weather. */
  report: { windSpeed: number; windDirection: number; temperature: number; humidity: number; rain: boolean };
}

/** Weather that changes slowly, with gusts; the same for the same seed and steps. */
export interface WeatherSource {
  step(dtSeconds: number): void;
  now(): Weather;
}

const MAX_WIND_MPS = 14;
const GUST_MEMORY_S = 4;

/** Starts the weather of a place. */
export function createWeather(seed: number): WeatherSource {
  const random = createRandom(seed);
  const noise = () => random() + random() + random() - 1.5;
  let meanMps = 2 + 5 * random();
  let towardDeg = 360 * random();
  let temperatureC = 6 + 18 * random();
  let humidityPercent = 45 + 40 * random();
  const rain = random() < 0.15;
  let gustX = 0;
  let gustY = 0;

  function step(dtSeconds: number): void {
    const drift = Math.sqrt(dtSeconds);
    meanMps = clamp(meanMps + 0.08 * drift * noise(), 0.5, 9);
    towardDeg += 1.2 * drift * noise();
    temperatureC = clamp(temperatureC + 0.01 * drift * noise(), -20, 40);
    humidityPercent = clamp(humidityPercent + 0.05 * drift * noise(), 20, 100);
    const keep = Math.exp(-dtSeconds / GUST_MEMORY_S);
    const stir = 0.5 * meanMps * Math.sqrt(1 - keep * keep);
    gustX = keep * gustX + stir * noise();
    gustY = keep * gustY + stir * noise();
  }

  function now(): Weather {
    const windX = meanMps * Math.sin(toRadians(towardDeg)) + gustX;
    const windY = meanMps * Math.cos(toRadians(towardDeg)) + gustY;
    const scale = Math.min(1, MAX_WIND_MPS / Math.hypot(windX, windY));
    return {
      windX: windX * scale,
      windY: windY * scale,
      gustX,
      gustY,
      report: {
        windSpeed: round(Math.hypot(windX, windY) * scale, 1),
        windDirection: Math.floor(bearingOf(-windX, -windY)),
        temperature: round(temperatureC, 1),
        humidity: Math.round(humidityPercent),
        rain,
      },
    };
  }

  return { step, now };
}

/** Rounds to so many digits after the point. */
export function round(value: number, digits: number): number {
  // Adding 0 turns a negative zero, which reads badly in JSON, into a plain one.
  return Math.round(value * 10 ** digits) / 10 ** digits + 0;
}
